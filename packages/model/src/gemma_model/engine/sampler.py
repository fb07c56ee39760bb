"""Logits to token ids; every row by its own rules, whatever the other rows are.

A row's random number comes from its seed and the token's place in the answer, not from a generator that
others advance, and rows are never computed by a path that another row chose: so equal seeds give equal
tokens in any company.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """How one row becomes a token.

    Args:
        temperature: 0 takes the likeliest.
        top_k: of the likeliest tokens to keep; 0 keeps all.
        top_p: probability to keep.
        random: from ``uniform``.
        banned: ids that must not come.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    random: float = 0.0
    banned: Collection[int] = ()


def uniform(seed: int, place: int) -> float:
    """A number from [0, 1) for one token of one request."""
    digest = hashlib.blake2b(f"{seed}:{place}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """One token id per row.

    Args:
        logits: ``[rows, vocab]`` fp32; banned ids are overwritten.
        draws: of each row.
    """
    for row, draw in enumerate(draws):
        if draw.banned:
            logits[row, list(draw.banned)] = -torch.inf
    ids: list[int] = logits.argmax(dim=-1).tolist()
    for kept in {_kept(draw, logits.shape[1]) for draw in draws if draw.temperature > 0}:
        rows = [r for r, d in enumerate(draws) if d.temperature > 0 and _kept(d, logits.shape[1]) == kept]
        chosen = _draw(logits[rows], [draws[row] for row in rows], kept)
        for row, token in zip(rows, chosen, strict=True):
            ids[row] = token
    return ids


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
        sums = weights.cumsum(dim=-1)
    wanted = column([draw.random for draw in draws]) * sums[:, -1:]
    places = torch.searchsorted(sums, wanted, right=True).clamp(max=_last(weights))
    return (places if ids is None else ids.gather(1, places)).squeeze(1).tolist()


def _last(weights: Tensor) -> Tensor:
    """``[rows, 1]``: the last token of each row that may come at all; rounding must not lead beyond it."""
    places = torch.arange(weights.shape[1], device=weights.device)
    return torch.where(weights > 0, places, 0).amax(dim=-1, keepdim=True)
