"""Drafts what a grammar leaves little choice about, such as the names of a JSON object's properties."""

from typing import Protocol, Self, runtime_checkable

from gemma_model.engine.drafts.draft_source import Draft
from gemma_model.engine_types import Constraint, DraftKind

FEW = 16
"""A state that allows at most so many tokens is one where the output has a habit, such as spaces in JSON."""


@runtime_checkable
class ForcingConstraint(Constraint, Protocol):
    """A constraint that knows which text must come next."""

    def forced(self) -> list[int]:
        """Tokens of the text that must come next. Other tokens may be allowed too, which begin that text."""

    def fork(self) -> Self:
        """See ``Constraint.fork``."""


class GrammarDrafts:
    """Drafts forced text, across states with few allowed tokens, where the output does what it did before.

    Args:
        constraint: of the choice; it is advanced by others.
    """

    kind: DraftKind = "grammar"

    def __init__(self, constraint: ForcingConstraint) -> None:
        self._constraint = constraint
        self._habits: dict[int, int | None] = {}  # after a token with few successors: what came the last time
        self._last = -1

    def append(self, token_id: int) -> None:
        """See ``DraftSource``."""
        if self._last in self._habits:
            self._habits[self._last] = token_id
        self._last = token_id

    def propose(self, limit: int) -> Draft:
        """See ``DraftSource``."""
        state, last, tokens = self._constraint, self._last, list[int]()
        while len(tokens) < limit:
            more = state.forced() or self._habit(state, last, known=not tokens)
            if not more:
                break
            state = state if tokens else state.fork()
            for token_id in more:
                state.advance(token_id)
            tokens += more
            last = tokens[-1]
        return Draft(tokens[:limit])

    def _habit(self, state: ForcingConstraint, last: int, known: bool) -> list[int]:
        """The token that usually follows the last one, if few may.

        Args:
            state: after the last token.
            last: the last token.
            known: look only if few tokens could follow such a token before, because a look takes time.
        """
        if known and last not in self._habits:
            return []
        allowed = int.from_bytes(state.allowed().astype("<i4").tobytes(), "little")
        if allowed.bit_count() > FEW:
            return []
        habit = self._habits.setdefault(last, None)
        return [habit] if habit is not None and allowed >> habit & 1 else []
