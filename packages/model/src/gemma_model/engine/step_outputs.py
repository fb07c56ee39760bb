"""What the engine does with the result of a step: sampling states, and outputs to the callbacks."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import repeat

from gemma_model.engine.sequence import SeqId
from gemma_model.engine.step_result import StepResult, error_message
from gemma_model.engine_types import EngineOutput, OutputCallback, PositionLogprobs
from gemma_model.sampling.sampling_state import SamplingState

log = logging.getLogger(__name__)
Outputs = list[tuple[OutputCallback, EngineOutput]]


def report(outputs: Outputs) -> None:
    """Call the callbacks; one that raises affects no other."""
    for on_output, output in outputs:
        try:
            on_output(output)
        except Exception:
            log.exception("an output callback failed")


def append_tokens(result: StepResult, states: Mapping[SeqId, SamplingState]) -> StepResult:
    """Add the new tokens to the sampling states; a choice whose constraint raises has failed."""
    failed, tokens = dict(result.failed), dict(result.tokens)
    for seq_id, token_ids in result.tokens.items():
        for place, token_id in enumerate(token_ids):
            try:
                states[seq_id].append(token_id)
            except Exception as error:
                log.exception("the constraint of choice %d of request %d failed", seq_id[1], seq_id[0])
                failed[seq_id], tokens[seq_id] = error_message(error), token_ids[:place]
                break
    return replace(result, tokens=tokens, failed=failed)


def each_token(logprobs: Iterable[PositionLogprobs] | None) -> Iterable[tuple[PositionLogprobs, ...]]:
    """The log probabilities of each token: none if they were not requested."""
    return repeat(()) if logprobs is None else ((own,) for own in logprobs)
