"""Draws tokens by temperature, top-k, top-p (Holtzman et al. 2020) and min-p (Nguyen et al. 2024).

Each row is independent of the other rows of its batch. Its random number comes from its seed and the token's
position in the output, not from a generator that other rows advance, and no row chooses how another row is
computed: so equal seeds give equal tokens in any batch.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gemma_model.engine_types import EngineSamplingParams

BLOCK = 512
"""Maximum number of tokens in one block of a row."""
BLOCK_SORTED = 128
"""The same where the largest of a row are searched."""
ROWS_AT_ONCE = 16
"""Rows that are drawn at once: with a vocabulary of 262,400 that takes about 100 MB."""

Params = Sequence[EngineSamplingParams]


def uniform(seed: int, position: int, choice: int = 0) -> float:
    """A number from [0, 1) for one token of one choice of a request."""
    digest = hashlib.blake2b(f"{seed}:{choice}:{position}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def argmax(logits: Tensor) -> list[int]:
    """The first of the largest logits of each row: its block, then its position there.

    On a CPU PyTorch's ``argmax`` of a complete row takes ten times as long as its ``amax``.
    """
    rows, vocab = logits.shape
    size = math.gcd(vocab, BLOCK)
    blocks = logits.view(rows, vocab // size, size)
    best = blocks.amax(dim=-1).argmax(dim=-1)
    position = blocks[torch.arange(rows, device=logits.device), best].argmax(dim=-1)
    ids: list[int] = (best * size + position).tolist()
    return ids


def draw_tokens(logits: Tensor, rows: Sequence[int], params: Params, random: Sequence[float]) -> list[int]:
    """A random token for some rows.

    Args:
        logits: ``[all rows, vocab]`` fp32.
        rows: those that are drawn.
        params: of each of them; the temperature is not 0.
        random: a number from ``uniform`` for each of them.
    """
    ids: list[int] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        ids += _draw(logits[list(rows[some])], params[some], random[some])
    return ids


def _draw(logits: Tensor, params: Params, random: Sequence[float]) -> list[int]:
    """A token of each row; the logits are overwritten."""
    temperatures = _column([own.temperature for own in params], logits)
    weights = torch.softmax(logits.div_(temperatures), dim=-1)
    by_count: dict[int, list[int]] = {}
    for row, count in enumerate(_counts_to_sort(weights, params)):
        by_count.setdefault(count, []).append(row)
    ids = [0] * len(params)
    for count, rows in by_count.items():
        own = weights if len(by_count) == 1 else weights[rows]
        numbers = _column([random[row] for row in rows], own)
        tokens = (
            _draw_of_top(own, [params[row] for row in rows], numbers, count)
            if count
            else _draw_of_all(own, numbers)
        )
        for row, token in zip(rows, tokens, strict=True):
            ids[row] = token
    return ids


def _counts_to_sort(weights: Tensor, params: Params) -> list[int]:
    """Of the most likely tokens of each row, how many to sort: a power of two or all, or 0 for none.

    Tokens below ``(1 - top_p) / vocab`` have less than ``1 - top_p`` together, so they are outside ``top_p``.
    """
    vocab = weights.shape[1]
    wanted = [own.top_k for own in params]
    counted = [not own.top_k and (own.top_p < 1 or own.min_p > 0) for own in params]
    if any(counted):
        outside = _column([(1 - own.top_p) / vocab for own in params], weights)
        unlikely = _column([own.min_p for own in params], weights) * weights.amax(dim=-1, keepdim=True)
        counts = torch.count_nonzero(weights >= torch.maximum(outside, unlikely), dim=-1).tolist()
        wanted = [max(n, 1) if count else k for n, count, k in zip(counts, counted, wanted, strict=True)]
    return [min(vocab, 1 << (n - 1).bit_length()) if n else 0 for n in wanted]


def _draw_of_all(weights: Tensor, random: Tensor) -> list[int]:
    """Any token: the cumulative sum passes the random number in a block, and there at a token."""
    rows, vocab = weights.shape
    size = math.gcd(vocab, BLOCK)
    blocks = weights.view(rows, vocab // size, size)
    sums = blocks.sum(dim=-1)
    ends = sums.cumsum(dim=-1)
    wanted = random * ends[:, -1:]
    block = _first_above(sums, ends, wanted)
    begin = ends.gather(1, block) - sums.gather(1, block)
    inside = blocks[torch.arange(rows, device=weights.device), block.squeeze(1)]
    token = _first_above(inside, inside.cumsum(dim=-1), (wanted - begin).clamp(min=0))
    return (block * size + token).squeeze(1).tolist()


def _draw_of_top(weights: Tensor, params: Params, random: Tensor, count: int) -> list[int]:
    """One of the ``count`` most likely tokens that ``top_k``, ``top_p`` and ``min_p`` keep."""
    weights, ids = _largest(weights, count)
    top_k = _column([float(own.top_k or count) for own in params], weights)
    weights.masked_fill_(torch.arange(count, device=weights.device) >= top_k, 0)
    sums = weights.cumsum(dim=-1)
    cut = _column([float(own.top_k > 0) for own in params], weights) > 0
    total = torch.where(cut, sums[:, -1:], 1.0)  # what top_p is a share of
    weights.masked_fill_(sums - weights >= _column([own.top_p for own in params], weights) * total, 0)
    weights.masked_fill_(weights < _column([own.min_p for own in params], weights) * weights[:, :1], 0)
    sums = weights.cumsum(dim=-1)
    return ids.gather(1, _first_above(weights, sums, random * sums[:, -1:])).squeeze(1).tolist()


def _largest(weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``topk`` of each row; a few are searched only in the blocks that have the largest maxima."""
    rows, vocab = weights.shape
    size = math.gcd(vocab, BLOCK_SORTED)
    if 4 * count * size > vocab:
        values, ids = weights.topk(count, dim=-1)
        return values, ids
    blocks = weights.view(rows, vocab // size, size)
    best = blocks.amax(dim=-1).topk(count, dim=-1).indices
    inside = blocks.gather(1, best.unsqueeze(-1).expand(-1, -1, size)).flatten(1)
    values, positions = inside.topk(count, dim=-1)
    return values, best.gather(1, positions // size) * size + positions % size


def _first_above(weights: Tensor, sums: Tensor, wanted: Tensor) -> Tensor:
    """``[rows, 1]``: where the sums exceed ``wanted``, at the latest at the last that has weight."""
    positions = torch.arange(weights.shape[1], device=weights.device)
    last = torch.where(weights > 0, positions, 0).amax(dim=-1, keepdim=True)
    return torch.searchsorted(sums, wanted, right=True).clamp(max=last)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).unsqueeze(1)
