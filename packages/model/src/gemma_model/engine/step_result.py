"""The result of a step, and the interface of what runs it."""

import logging
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gemma_model.engine.sequence import MediaKey, SeqId
from gemma_model.engine.step_plan import StepPlan
from gemma_model.engine_types import PositionLogprobs
from gemma_model.sampling.sampling_state import SamplingState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """The result of a step.

    Args:
        tokens: the new tokens of each sequence that gets some by the plan: one, and after it as many as its
            draft was right about. One that has failed may have some before the failure.
        failed: error messages of the sequences that failed. A prompt fails with all its forks.
        logprobs: of the new tokens of sequences that requested them.
        prompt_logprobs: by the id of a prefill, if requested: of the token after each that it ran.
    """

    tokens: Mapping[SeqId, Sequence[int]] = field(default_factory=dict)
    failed: Mapping[SeqId, str] = field(default_factory=dict)
    logprobs: Mapping[SeqId, Sequence[PositionLogprobs]] = field(default_factory=dict)
    prompt_logprobs: Mapping[SeqId, list[PositionLogprobs]] = field(default_factory=dict)


class StepRunner(Protocol):
    """Runs steps. It does not change the sampling states."""

    @property
    def encoded(self) -> Container[MediaKey]:
        """The media whose soft tokens are available; those that the last ``retain`` named stay available."""

    def retain(self, needed: Collection[MediaKey]) -> None:
        """Keep the soft tokens of these media; stop encoding any other."""

    def run(self, plan: StepPlan, states: Mapping[SeqId, SamplingState]) -> StepResult:
        """Run every sequence of the plan; raises if that is impossible for all."""


def error_message(error: Exception) -> str:
    """The type and message of an exception."""
    return f"{type(error).__name__}: {error}"


def log_failure(seq_id: SeqId, error: Exception) -> str:
    """The error message for the client; logs the exception with its traceback."""
    log.error("choice %d of request %d failed", seq_id[1], seq_id[0], exc_info=error)
    return error_message(error)
