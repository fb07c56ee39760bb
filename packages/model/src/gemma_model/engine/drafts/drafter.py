"""The drafts of one choice of a request: from its best source, with the acceptance of each."""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gemma_model.engine.drafts.acceptance import AcceptanceRate
from gemma_model.engine.drafts.draft_source import Draft, DraftSource
from gemma_model.engine.drafts.step_cost import Candidate, expected_tokens
from gemma_model.engine_types import DraftKind

log = logging.getLogger(__name__)
PRIORS: Mapping[DraftKind, float] = {"grammar": 0.9, "prediction": 0.8, "ngram": 0.5}


class Proposal(NamedTuple):
    """A draft, its kind, and the acceptance of such drafts."""

    draft: Draft
    kind: DraftKind
    rate: AcceptanceRate

    @property
    def candidate(self) -> Candidate:
        """For ``choose_lengths``."""
        return Candidate(self.rate.value, len(self.draft.token_ids))


class Checked(NamedTuple):
    """A draft after its step: its kind, and how many tokens it had and were accepted."""

    kind: DraftKind
    drafted: int
    accepted: int


class Drafter:
    """Drafts for one choice.

    Args:
        sources: the earlier ones win if drafts are equally good.
    """

    def __init__(self, sources: Sequence[DraftSource]) -> None:
        self._sources = sources
        self._rates: dict[tuple[DraftKind, int], AcceptanceRate] = {}
        self._asked: tuple[Proposal, int] | None = None
        self.prediction_tokens = (0, 0)
        """Tokens of the client's prediction that were drafted and accepted, and that were rejected."""

    def propose(self, limit: int, lowest_rate: float) -> Proposal | None:
        """The draft with most expected tokens; ``None`` if no source has one that pays.

        Args:
            limit: of its tokens.
            lowest_rate: a draft pays whose tokens are right with a higher probability.
        """
        found = [proposal for source in self._sources if (proposal := self._from(source, limit, lowest_rate))]
        return max(found, key=lambda own: expected_tokens(own.candidate, own.candidate.tokens), default=None)

    def check(self, proposal: Proposal, length: int) -> None:
        """So many tokens of a proposal are checked in the next step."""
        if length:
            self._asked = proposal, length
        else:
            proposal.rate.skip()

    def append(self, token_ids: Sequence[int]) -> Checked | None:
        """Add the tokens of a step; what became of its draft if there was one."""
        for source in self._sources:
            for token_id in token_ids:
                source.append(token_id)
        if self._asked is None:
            return None
        (proposal, drafted), self._asked = self._asked, None
        accepted = min(max(0, len(token_ids) - 1), drafted)
        proposal.rate.add(drafted, accepted)
        if proposal.kind == "prediction":
            before = self.prediction_tokens
            self.prediction_tokens = before[0] + accepted, before[1] + drafted - accepted
        return Checked(proposal.kind, drafted, accepted)

    def _from(self, source: DraftSource, limit: int, lowest_rate: float) -> Proposal | None:
        try:
            draft = source.propose(limit)
        except Exception:  # a draft is never necessary
            log.exception("no draft of the kind %s", source.kind)
            return None
        if not draft.token_ids:
            return None
        key = source.kind, draft.evidence
        rate = self._rates.setdefault(key, AcceptanceRate(PRIORS[source.kind]))
        if rate.value <= lowest_rate:
            rate.skip()
            return None
        return Proposal(draft, source.kind, rate)
