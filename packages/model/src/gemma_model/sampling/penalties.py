"""Penalties for tokens that are in the text already, and logit bias."""

from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gemma_model.engine_types import EngineSamplingParams

Bias = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Token ids, and what is added to their logits."""


class TokenCounts:
    """The distinct tokens of a text, and how often each is in its output.

    Appending a token takes constant time, however long the text is.

    Args:
        prompt: its tokens; not needed without a repetition penalty.
    """

    def __init__(self, prompt: Iterable[int] = ()) -> None:
        self._ids = array("q", sorted(set(prompt)))
        self._counts = array("f", bytes(4 * len(self._ids)))
        self._places = {token_id: place for place, token_id in enumerate(self._ids)}

    def append(self, token_id: int) -> None:
        """Count a token of the output."""
        place = self._places.setdefault(token_id, len(self._ids))
        if place == len(self._ids):
            self._ids.append(token_id)
            self._counts.append(0.0)
        self._counts[place] += 1

    def with_output(self, token_ids: Iterable[int]) -> "TokenCounts":
        """A copy with more tokens of the output."""
        copied = TokenCounts()
        copied._ids, copied._counts, copied._places = self._ids[:], self._counts[:], dict(self._places)
        for token_id in token_ids:
            copied.append(token_id)
        return copied

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Each token once, ``[distinct tokens]``."""
        return np.array(self._ids, np.int64)

    @property
    def counts(self) -> npt.NDArray[np.float32]:
        """How often each is in the output, ``[distinct tokens]``; 0 if it is in the prompt only."""
        return np.array(self._counts, np.float32)


def needed_counts(params: EngineSamplingParams, prompt: Iterable[int]) -> TokenCounts | None:
    """The token counts that a request's penalties need, before its first token."""
    if params.repetition_penalty != 1:
        return TokenCounts(prompt)
    return TokenCounts() if params.frequency_penalty or params.presence_penalty else None


def bias_arrays(params: EngineSamplingParams) -> Bias | None:
    """``logit_bias`` as arrays."""
    if not params.logit_bias:
        return None
    ids, values = zip(*params.logit_bias.items(), strict=True)
    return np.array(ids, np.int64), np.array(values, np.float32)


def apply_penalties(logits: Tensor, params: EngineSamplingParams, tokens: TokenCounts) -> None:
    """Apply the repetition, frequency and presence penalties to ``[vocab]`` logits, in place."""
    ids, counts = _tensor(tokens.ids, logits), _tensor(tokens.counts, logits)
    old, repetition = logits[ids], params.repetition_penalty
    repeated = torch.where(old > 0, old / repetition, old * repetition)
    logits[ids] = repeated - params.frequency_penalty * counts - params.presence_penalty * (counts > 0)


def apply_bias(logits: Tensor, bias: Bias) -> None:
    """Add a bias to ``[vocab]`` logits, in place; ids outside the vocabulary have no effect."""
    ids, values = bias
    inside = ids < len(logits)
    logits[_tensor(ids[inside], logits)] += _tensor(values[inside], logits)


def _tensor(values: npt.NDArray[np.int64] | npt.NDArray[np.float32], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device)
