"""Logits to token ids; every row by its own rules, whatever the other rows are.

A row's random number comes from its seed and the token's place in the answer, not from a generator that
others advance, and rows are never computed by a path that another row chose: so equal seeds give equal
tokens in any company.
"""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gemma_model.engine.choice import Ids, Numbers

BLOCK = 512
"""Tokens that are looked at together first, at most."""
BLOCK_SORTED = 128
"""The same, where the largest of a row are looked for."""
ROWS_AT_ONCE = 16
"""Rows that are drawn together: over a vocabulary of 262,400 that takes some 100 MB."""


@dataclass(frozen=True)
class Penalties:
    """What tokens cost that stand in the text already.

    Args:
        ids: those tokens, each once.
        counts: how often each stands in the answer; those of the prompt alone do 0 times.
        repetition: divides positive logits and multiplies negative ones.
        frequency: taken from a logit for each time.
        presence: taken from a logit once.
    """

    ids: Ids
    counts: Numbers
    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0


@dataclass(frozen=True)
class Draw:
    """How one row becomes a token.

    Args:
        temperature: 0 takes the likeliest.
        top_k: of the likeliest tokens to keep; 0 keeps all.
        top_p: probability to keep, of those that ``top_k`` leaves.
        min_p: probability that is kept, as a share of the likeliest token's.
        random: from ``uniform``.
        banned: ids that must not come; those outside the vocabulary do not anyway.
        penalties: for tokens that came before.
        bias: ids, and what is added to their logits.
        forbidden: whether a token must not come, ``[vocab]`` booleans; then nobody looks at ``banned``.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    random: float = 0.0
    banned: Collection[int] = ()
    penalties: Penalties | None = None
    bias: tuple[Ids, Numbers] | None = None
    forbidden: Tensor | None = None


def uniform(seed: int, place: int, choice: int = 0) -> float:
    """A number from [0, 1) for one token of one choice of a request."""
    digest = hashlib.blake2b(f"{seed}:{choice}:{place}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """One token id per row.

    Args:
        logits: ``[rows, vocab]`` fp32; rows that ask for more than temperature and truncation are changed.
        draws: of each row.
    """
    for row, draw in zip(logits, draws, strict=True):
        _adjust(row, draw)
    ids = _likeliest(logits)
    drawn = [row for row, draw in enumerate(draws) if draw.temperature > 0]
    for start in range(0, len(drawn), ROWS_AT_ONCE):
        some = drawn[start : start + ROWS_AT_ONCE]
        for row, token in zip(some, _draw(logits[some], [draws[row] for row in some]), strict=True):
            ids[row] = token
    return ids


def _likeliest(logits: Tensor) -> list[int]:
    """The first of the largest logits of each row: its block, then its place there.

    On a CPU PyTorch's ``argmax`` of a whole row takes ten times as long as its ``amax``.
    """
    rows, vocab = logits.shape
    size = math.gcd(vocab, BLOCK)
    blocks = logits.view(rows, vocab // size, size)
    best = blocks.amax(dim=-1).argmax(dim=-1)
    place = blocks[torch.arange(rows, device=logits.device), best].argmax(dim=-1)
    ids: list[int] = (best * size + place).tolist()
    return ids


def _adjust(row: Tensor, draw: Draw) -> None:
    """Penalties and bias, then what may not come at all; in place, ``[vocab]``."""
    if draw.penalties is not None:
        _penalise(row, draw.penalties)
    if draw.bias is not None:
        ids, values = draw.bias
        inside = ids < len(row)
        row[_on(row, ids[inside])] += _on(row, values[inside])
    if draw.forbidden is not None:
        row.masked_fill_(draw.forbidden.to(row.device), -torch.inf)
    elif draw.banned:
        row[[token_id for token_id in draw.banned if token_id < len(row)]] = -torch.inf


def _penalise(row: Tensor, penalties: Penalties) -> None:
    ids, counts = _on(row, penalties.ids), _on(row, penalties.counts)
    logits = row[ids]
    repeated = torch.where(logits > 0, logits / penalties.repetition, logits * penalties.repetition)
    row[ids] = repeated - penalties.frequency * counts - penalties.presence * (counts > 0)


def _on(row: Tensor, values: Ids | Numbers) -> Tensor:
    return torch.from_numpy(values).to(row.device)


def _draw(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """A token of each row; the logits are overwritten."""
    temperatures = _column([draw.temperature for draw in draws], logits)
    weights = torch.softmax(logits.div_(temperatures), dim=-1)
    paths: dict[int, list[int]] = {}
    for row, kept in enumerate(_kept(weights, draws)):
        paths.setdefault(kept, []).append(row)
    ids = [0] * len(draws)
    for kept, rows in paths.items():
        own = weights if len(paths) == 1 else weights[rows]
        asked = [draws[row] for row in rows]
        for row, token in zip(rows, _of_some(own, asked, kept) if kept else _of_all(own, asked), strict=True):
            ids[row] = token
    return ids


def _kept(weights: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Of the likeliest tokens of each row, how many to sort: a power of two or all, or 0 for no sorting.

    Tokens below ``(1 - top_p) / vocab`` have less than ``1 - top_p`` together, so they lie beyond ``top_p``.
    """
    vocab = weights.shape[1]
    wanted = [draw.top_k for draw in draws]
    counted = [not draw.top_k and (draw.top_p < 1 or draw.min_p > 0) for draw in draws]
    if any(counted):
        beyond = _column([(1 - draw.top_p) / vocab for draw in draws], weights)
        unlikely = _column([draw.min_p for draw in draws], weights) * weights.amax(dim=-1, keepdim=True)
        counts = torch.count_nonzero(weights >= torch.maximum(beyond, unlikely), dim=-1).tolist()
        wanted = [max(n, 1) if count else k for n, count, k in zip(counts, counted, wanted, strict=True)]
    return [min(vocab, 1 << (n - 1).bit_length()) if n else 0 for n in wanted]


def _of_all(weights: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Any token: the sum of probabilities passes the random number in a block, and there at a token."""
    rows, vocab = weights.shape
    size = math.gcd(vocab, BLOCK)
    blocks = weights.view(rows, vocab // size, size)
    sums = blocks.sum(dim=-1)
    ends = sums.cumsum(dim=-1)
    wanted = _column([draw.random for draw in draws], weights) * ends[:, -1:]
    block = _passed(sums, ends, wanted)
    begin = ends.gather(1, block) - sums.gather(1, block)
    inside = blocks[torch.arange(rows, device=weights.device), block.squeeze(1)]
    token = _passed(inside, inside.cumsum(dim=-1), (wanted - begin).clamp(min=0))
    return (block * size + token).squeeze(1).tolist()


def _of_some(weights: Tensor, draws: Sequence[Draw], kept: int) -> list[int]:
    """One of the ``kept`` likeliest tokens, as far as ``top_k``, ``top_p`` and ``min_p`` leave them."""
    weights, ids = _largest(weights, kept)
    within = _column([float(draw.top_k or kept) for draw in draws], weights)
    weights.masked_fill_(torch.arange(kept, device=weights.device) >= within, 0)
    sums = weights.cumsum(dim=-1)
    cut = _column([float(draw.top_k > 0) for draw in draws], weights) > 0
    whole = torch.where(cut, sums[:, -1:], 1.0)  # what top_p is a share of
    weights.masked_fill_(sums - weights >= _column([draw.top_p for draw in draws], weights) * whole, 0)
    weights.masked_fill_(weights < _column([draw.min_p for draw in draws], weights) * weights[:, :1], 0)
    sums = weights.cumsum(dim=-1)
    wanted = _column([draw.random for draw in draws], weights) * sums[:, -1:]
    return ids.gather(1, _passed(weights, sums, wanted)).squeeze(1).tolist()


def _largest(weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``topk`` of each row; few are looked for in those blocks alone that have the largest maxima."""
    rows, vocab = weights.shape
    size = math.gcd(vocab, BLOCK_SORTED)
    if 4 * count * size > vocab:
        values, ids = weights.topk(count, dim=-1)
        return values, ids
    blocks = weights.view(rows, vocab // size, size)
    best = blocks.amax(dim=-1).topk(count, dim=-1).indices
    inside = blocks.gather(1, best.unsqueeze(-1).expand(-1, -1, size)).flatten(1)
    values, places = inside.topk(count, dim=-1)
    return values, best.gather(1, places // size) * size + places % size


def _passed(weights: Tensor, sums: Tensor, wanted: Tensor) -> Tensor:
    """``[rows, 1]``: where sums pass what is wanted, at the last that has weight at the latest."""
    places = torch.arange(weights.shape[1], device=weights.device)
    last = torch.where(weights > 0, places, 0).amax(dim=-1, keepdim=True)
    return torch.searchsorted(sums, wanted, right=True).clamp(max=last)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).unsqueeze(1)
