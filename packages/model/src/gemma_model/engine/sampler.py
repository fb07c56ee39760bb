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
"""Logits that are looked at together first, at most."""
ROWS_AT_ONCE = 16
"""Rows that are sorted together: over a vocabulary of 262,400 that takes some 100 MB."""


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
    paths: dict[tuple[int, bool], list[int]] = {}
    for row, draw in enumerate(draws):
        if draw.temperature > 0:
            paths.setdefault((_kept(draw, logits.shape[1]), draw.min_p > 0), []).append(row)
    for (kept, _), rows in paths.items():
        for some in (rows[i : i + ROWS_AT_ONCE] for i in range(0, len(rows), ROWS_AT_ONCE)):
            chosen = _draw(logits[some], [draws[row] for row in some], kept)
            for row, token in zip(some, chosen, strict=True):
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


def _kept(draw: Draw, vocab: int) -> int:
    """Of the likeliest tokens, how many to sort: a power of two, the whole vocabulary, or 0 for none."""
    if draw.top_k:
        return min(vocab, 1 << (draw.top_k - 1).bit_length())
    return vocab if draw.top_p < 1 else 0


def _draw(logits: Tensor, draws: Sequence[Draw], kept: int) -> list[int]:
    """Tokens of rows that keep equally many: find where the sum of probabilities passes the random number."""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=logits.dtype, device=logits.device).unsqueeze(1)

    ids = None
    if kept:
        logits, ids = logits.topk(kept, dim=-1)
        within = column([float(draw.top_k or kept) for draw in draws])
        logits = logits.masked_fill(torch.arange(kept, device=logits.device) >= within, -torch.inf)
    weights = torch.softmax(logits / column([draw.temperature for draw in draws]), dim=-1)
    sums = weights.cumsum(dim=-1)
    if ids is not None:  # sorted: beyond top_p lie those before which so much is summed up already
        weights = weights.masked_fill(sums - weights >= column([draw.top_p for draw in draws]), 0.0)
    if draws[0].min_p:
        least = column([draw.min_p for draw in draws]) * weights.amax(dim=-1, keepdim=True)
        weights = weights.masked_fill(weights < least, 0.0)
    if ids is not None or draws[0].min_p:
        sums = weights.cumsum(dim=-1)
    wanted = column([draw.random for draw in draws]) * sums[:, -1:]
    places = torch.searchsorted(sums, wanted, right=True).clamp(max=_last(weights))
    return (places if ids is None else ids.gather(1, places)).squeeze(1).tolist()


def _last(weights: Tensor) -> Tensor:
    """``[rows, 1]``: the last token of each row that may come at all; rounding must not lead beyond it."""
    places = torch.arange(weights.shape[1], device=weights.device)
    return torch.where(weights > 0, places, 0).amax(dim=-1, keepdim=True)
