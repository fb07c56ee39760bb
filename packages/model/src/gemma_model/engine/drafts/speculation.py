"""Adds drafts to the plan of a step, and learns from its result how long drafts should be."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gemma_model.engine.drafts.draft_source import DraftSource
from gemma_model.engine.drafts.drafter import Checked, Drafter, Proposal
from gemma_model.engine.drafts.grammar_drafts import ForcingConstraint, GrammarDrafts
from gemma_model.engine.drafts.step_cost import StepCost, choose_lengths, lowest_rate
from gemma_model.engine.drafts.token_lookup import PredictionLookup, PromptLookup
from gemma_model.engine.sequence import SeqId
from gemma_model.engine.step_plan import Decode, StepPlan
from gemma_model.sampling.sampling_state import SamplingState

log = logging.getLogger(__name__)
MakeSources = Callable[[SamplingState], Sequence[DraftSource]]


def make_sources(state: SamplingState) -> Sequence[DraftSource]:
    """All sources of drafts for one choice: its grammar, its prediction, and its own text."""
    request, sources = state.request, list[DraftSource]()
    if isinstance(state.constraint, ForcingConstraint):
        sources.append(GrammarDrafts(state.constraint))
    if request.prediction:
        sources.append(PredictionLookup(request.prediction))
    return [*sources, PromptLookup(request.prompt.token_ids)]


class Speculation:
    """Drafts for the steps of an engine.

    Args:
        max_tokens: of a draft; 0: there are none.
        max_rows: of a step; ``None``: any number.
        make_sources: the sources of a choice.
    """

    def __init__(
        self, max_tokens: int = 0, max_rows: int | None = None, make_sources: MakeSources = make_sources
    ) -> None:
        self._max_tokens, self._max_rows, self._make_sources = max_tokens, max_rows, make_sources
        self._cost = StepCost()

    def drafter(self, state: SamplingState) -> Drafter | None:
        """For a new choice; ``None`` if there are no drafts."""
        return Drafter(self._make_sources(state)) if self._max_tokens else None

    def extend(
        self, plan: StepPlan, states: Mapping[SeqId, SamplingState], drafters: Mapping[SeqId, Drafter]
    ) -> StepPlan:
        """The plan, with a draft for each decode for which that is expected to pay."""
        if not plan.decodes or not drafters:
            return plan
        try:
            return self._extend(plan, states, drafters)
        except Exception:  # drafts are never necessary, and a step that fails ends all requests
            log.exception("a step runs without drafts")
            return plan

    def _extend(
        self, plan: StepPlan, states: Mapping[SeqId, SamplingState], drafters: Mapping[SeqId, Drafter]
    ) -> StepPlan:
        rows, room = len(plan.decodes), self._room(len(plan.decodes))
        lowest = lowest_rate(self._cost, rows)
        found: dict[SeqId, Proposal] = {}
        for decode in plan.decodes:
            limit = min(self._limit(decode, states[decode.seq_id]), room)
            if limit > 0 and (own := drafters[decode.seq_id].propose(limit, lowest)):
                found[decode.seq_id] = own
        if not found:
            return plan
        wanted = choose_lengths([own.candidate for own in found.values()], self._cost, rows)
        drafts: dict[SeqId, tuple[int, ...]] = {}
        for (seq_id, own), length in zip(found.items(), wanted, strict=True):
            stop_ids = states[seq_id].request.stop_token_ids
            drafts[seq_id] = _before_stop(own.draft.token_ids[: min(length, room)], stop_ids)
            drafters[seq_id].check(own, len(drafts[seq_id]))
            room -= len(drafts[seq_id])
        return replace(plan, decodes=tuple(replace(d, draft=drafts.get(d.seq_id, ())) for d in plan.decodes))

    def measure(self, plan: StepPlan, seconds: float) -> None:
        """A step took this time."""
        if plan.decodes and not (plan.prefills or plan.encode or plan.saves or plan.loads or plan.clears):
            self._cost.add(sum(1 + len(decode.draft) for decode in plan.decodes), seconds)

    @staticmethod
    def learn(tokens: Mapping[SeqId, Sequence[int]], drafters: Mapping[SeqId, Drafter]) -> list[Checked]:
        """Add the new tokens of a step to the drafters; what became of the drafts."""
        checked = (drafters[seq_id].append(own) for seq_id, own in tokens.items() if seq_id in drafters)
        return [one for one in checked if one is not None]

    def _limit(self, decode: Decode, state: SamplingState) -> int:
        """The last token of an output is never drafted: one more comes after a draft that is right."""
        return min(self._max_tokens, state.request.max_tokens - decode.generated - 1)

    def _room(self, rows: int) -> int:
        """Rows that drafts may take."""
        return self._max_tokens * rows if self._max_rows is None else max(0, self._max_rows - rows)


def _before_stop(token_ids: Sequence[int], stop_ids: frozenset[int]) -> tuple[int, ...]:
    """Nothing follows a stop token, so its row would be of no use."""
    stop = next((i for i, token_id in enumerate(token_ids) if token_id in stop_ids), len(token_ids))
    return tuple(token_ids[:stop])
