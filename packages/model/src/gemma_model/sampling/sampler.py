"""Logits → one token for each sequence of a step, by the sampling parameters of its request."""

import logging
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gemma_model.engine_types import EngineSamplingParams, PositionLogprobs
from gemma_model.sampling.logprobs import compute_logprobs
from gemma_model.sampling.penalties import Bias, TokenCounts, apply_bias, apply_penalties
from gemma_model.sampling.sampling_state import SamplingState
from gemma_model.sampling.topk_topp_sampler import argmax, draw_tokens, uniform
from gemma_model.structured_output.bitmask import BitmaskWorkers

GREEDY = EngineSamplingParams(temperature=0.0)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplingRow:
    """How one row of logits becomes a token.

    Args:
        params: of the request.
        random: from ``uniform``.
        banned: ids that must not come; those outside the vocabulary have no effect.
        token_counts: of the text so far, if there are penalties.
        bias: to add to the logits.
        disallowed: the tokens that must not come, ``[vocab]`` booleans; ``banned`` has no effect then.
    """

    params: EngineSamplingParams = GREEDY
    random: float = 0.0
    banned: Collection[int] = ()
    token_counts: TokenCounts | None = None
    bias: Bias | None = None
    disallowed: Tensor | None = None


class PendingToken(NamedTuple):
    """A sequence that is to get a token.

    Args:
        state: of the sequence.
        generated: number of tokens generated before.
        stop_allowed: whether the token may be a stop token.
        disallowed: the tokens that its constraint disallows, which are being computed.
    """

    state: SamplingState
    generated: int
    stop_allowed: bool
    disallowed: Future[Tensor] | None


class SampledToken(NamedTuple):
    """A new token, and its log probabilities if they were requested."""

    token_id: int
    logprobs: PositionLogprobs | None


class Sampler:
    """Samples the tokens of a step.

    Args:
        vocab: number of logits of the model.
    """

    def __init__(self, vocab: int) -> None:
        self._bitmasks = BitmaskWorkers(vocab)

    def prepare(self, state: SamplingState, generated: int, stop_allowed: bool) -> PendingToken:
        """Start what can be computed while the model runs; for ``sample``."""
        constraint, stop_ids = state.constraint, state.request.stop_token_ids
        submit = self._bitmasks.submit
        mask = None if constraint is None else submit(constraint, stop_allowed, stop_ids)
        return PendingToken(state, generated, stop_allowed, mask)

    def sample(self, logits: Tensor, pending: Sequence[PendingToken]) -> list[SampledToken | Exception]:
        """One token for each sequence, or the exception that its constraint has raised.

        Args:
            logits: ``[sequences, vocab]`` fp32; some rows are changed.
            pending: the sequence of each row.
        """
        rows = [_row_or_error(one) for one in pending]
        asked = [one.state.request for one in pending]
        raw = {i: logits[i : i + 1].clone() for i, one in enumerate(asked) if one.logprobs is not None}
        ids = sample_rows(logits, [row if isinstance(row, SamplingRow) else SamplingRow() for row in rows])
        logprobs = {
            i: compute_logprobs(own, [ids[i]], asked[i].logprobs or 0, asked[i].logprob_token_ids)[0]
            for i, own in raw.items()
        }
        return [
            row if isinstance(row, Exception) else SampledToken(token_id, logprobs.get(i))
            for i, (row, token_id) in enumerate(zip(rows, ids, strict=True))
        ]

    def close(self) -> None:
        """Return when no thread is left."""
        self._bitmasks.close()


def _row_or_error(pending: PendingToken) -> SamplingRow | Exception:
    state, params = pending.state, pending.state.request.sampling
    assert params.seed is not None, "the engine sets a random seed if the request has none"
    try:
        disallowed = None if pending.disallowed is None else pending.disallowed.result()
    except Exception as error:
        return error
    return SamplingRow(
        params=params,
        random=uniform(params.seed, pending.generated, state.choice) if params.temperature else 0.0,
        banned=() if pending.stop_allowed else state.request.stop_token_ids,
        token_counts=state.token_counts,
        bias=state.bias,
        disallowed=disallowed,
    )


def sample_rows(logits: Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    """One token id per row.

    Args:
        logits: ``[rows, vocab]`` fp32; rows with penalties, bias or disallowed tokens are changed.
        rows: how each row is sampled.
    """
    for own, row in zip(logits, rows, strict=True):
        _adjust(own, row)
    ids = argmax(logits)
    drawn = [i for i, row in enumerate(rows) if row.params.temperature > 0]
    if drawn:
        tokens = draw_tokens(logits, drawn, [rows[i].params for i in drawn], [rows[i].random for i in drawn])
        for i, token_id in zip(drawn, tokens, strict=True):
            ids[i] = token_id
    return ids


def _adjust(logits: Tensor, row: SamplingRow) -> None:
    """Penalties and bias, then what must not come; in place, ``[vocab]``."""
    if row.token_counts is not None:
        apply_penalties(logits, row.params, row.token_counts)
    if row.bias is not None:
        apply_bias(logits, row.bias)
    if row.disallowed is not None:
        logits.masked_fill_(row.disallowed.to(logits.device), -torch.inf)
    elif row.banned:
        logits[[token_id for token_id in row.banned if token_id < len(logits)]] = -torch.inf
