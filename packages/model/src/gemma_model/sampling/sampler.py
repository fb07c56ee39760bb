"""Logits → the next tokens of each sequence of a step, by the sampling parameters of its request."""

import logging
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import NamedTuple

import torch
from torch import Tensor

from gemma_model.engine_types import EngineRequest, EngineSamplingParams, PositionLogprobs
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


class PendingTokens(NamedTuple):
    """A sequence that is to get a token, and more after it if its draft is right.

    Args:
        state: of the sequence.
        generated: number of tokens generated before.
        stop_allowed: whether the token may be a stop token, and the one after each of the draft.
        draft: tokens that may come next.
        disallowed: the tokens that its constraint disallows, which are being computed; they may end early.
    """

    state: SamplingState
    generated: int
    stop_allowed: Sequence[bool]
    draft: Sequence[int]
    disallowed: Future[list[Tensor]] | None


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

    def prepare(
        self, state: SamplingState, generated: int, stop_allowed: bool, draft: Sequence[int] = ()
    ) -> PendingTokens:
        """Start what can be computed while the model runs; for ``sample``."""
        request, masks = state.request, None
        later = (generated + place >= request.min_tokens for place in range(1, len(draft) + 1))
        may_stop = [stop_allowed, *later]
        if state.constraint is not None:
            masks = self._bitmasks.submit(state.constraint, draft, may_stop, request.stop_token_ids)
        return PendingTokens(state, generated, may_stop, draft, masks)

    def sample(
        self, logits: Tensor, pending: Sequence[PendingTokens]
    ) -> list[list[SampledToken] | Exception]:
        """The next tokens of each sequence, or the exception that its constraint has raised.

        Every row is sampled as if the draft before it were right. The tokens end with the first that differs
        from the draft, so they are those that steps without drafts would give.

        Args:
            logits: of each sequence, as many rows as its draft has tokens and one more, ``[rows, vocab]``
                fp32; some are changed.
            pending: the sequences.
        """
        rows = [_rows_or_error(one) for one in pending]
        sizes = [1 + len(one.draft) for one in pending]
        starts = [0, *accumulate(sizes)]
        asked = [one.state.request for one in pending]
        raw = {
            i: logits[starts[i] : starts[i + 1]].clone()
            for i, one in enumerate(asked)
            if one.logprobs is not None
        }
        ids = sample_rows(logits, list(chain.from_iterable(map(_padded, rows, sizes))))
        result: list[list[SampledToken] | Exception] = []
        for i, (own, one) in enumerate(zip(rows, pending, strict=True)):
            if isinstance(own, Exception):
                result.append(own)
                continue
            accepted = _accepted(ids[starts[i] : starts[i] + len(own)], one)
            result.append(_sampled(accepted, one.state.request, raw.get(i)))
        return result

    def close(self) -> None:
        """Return when no thread is left."""
        self._bitmasks.close()


def _rows_or_error(pending: PendingTokens) -> list[SamplingRow] | Exception:
    """The rows of a sequence: of its next token, and of the one after each token of its draft."""
    rows = 1 + len(pending.draft)
    try:
        disallowed = [None] * rows if pending.disallowed is None else pending.disallowed.result()
    except Exception as error:
        return error
    return [_row(pending, place, own) for place, own in enumerate(disallowed[:rows])]


def _row(pending: PendingTokens, place: int, disallowed: Tensor | None) -> SamplingRow:
    state, params = pending.state, pending.state.request.sampling
    assert params.seed is not None, "the engine sets a random seed if the request has none"
    random = uniform(params.seed, pending.generated + place, state.choice) if params.temperature else 0.0
    return SamplingRow(
        params=params,
        random=random,
        banned=() if pending.stop_allowed[place] else state.request.stop_token_ids,
        token_counts=state.counts_after(pending.draft[:place]),
        bias=state.bias,
        disallowed=disallowed,
    )


def _padded(rows: list[SamplingRow] | Exception, size: int) -> list[SamplingRow]:
    """As many rows as there are logits; nobody reads the tokens of the others."""
    known = [] if isinstance(rows, Exception) else rows
    return [*known, *[SamplingRow()] * (size - len(known))]


def _accepted(ids: Sequence[int], pending: PendingTokens) -> list[int]:
    """The sampled tokens up to the first that ends the output or differs from the draft."""
    for place, (token_id, drafted) in enumerate(zip(ids, pending.draft, strict=False)):
        if token_id != drafted or token_id in pending.state.request.stop_token_ids:
            return list(ids[: place + 1])
    return list(ids)


def _sampled(ids: Sequence[int], request: EngineRequest, raw: Tensor | None) -> list[SampledToken]:
    if raw is None:
        return [SampledToken(token_id, None) for token_id in ids]
    top, wanted = request.logprobs or 0, request.logprob_token_ids
    each = (compute_logprobs(raw[i : i + 1], [own], top, wanted)[0] for i, own in enumerate(ids))
    return list(map(SampledToken, ids, each))


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
