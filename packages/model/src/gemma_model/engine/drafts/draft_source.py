"""The interface of what guesses the next tokens of one choice of a request."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from gemma_model.engine_types import DraftKind


class Draft(NamedTuple):
    """Tokens that may come next.

    Args:
        token_ids: in order; may be empty.
        evidence: drafts of one kind with the same number are accepted about equally often.
    """

    token_ids: Sequence[int] = ()
    evidence: int = 0


class DraftSource(Protocol):
    """Guesses the next tokens of one choice. It is used by one thread at a time.

    Grammars, predictions and repeated text are such sources. A draft model can be one too: its ``append``
    only notes the token, and ``propose`` runs the model over what it has not seen.
    """

    @property
    def kind(self) -> DraftKind:
        """For the metrics."""

    def append(self, token_id: int) -> None:
        """The next token of the output, whether it was drafted or not."""

    def propose(self, limit: int) -> Draft:
        """At most ``limit`` tokens that may follow the output so far. Nothing changes for the output."""
