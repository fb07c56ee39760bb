"""The tokens that constraints disallow, computed in other threads while the model runs."""

from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from gemma_model.engine_types import Constraint

THREADS = 4


class BitmaskWorkers:
    """Threads that compute bitmasks.

    Args:
        vocab: number of logits of the model.
    """

    def __init__(self, vocab: int) -> None:
        self._vocab = vocab
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="constraint")  # starts threads on demand

    def submit(self, constraint: Constraint, stop_allowed: bool, stop_ids: Collection[int]) -> Future[Tensor]:
        """Start to compute a bitmask; see ``disallowed_tokens``."""
        return self._pool.submit(disallowed_tokens, constraint, stop_allowed, stop_ids, self._vocab)

    def close(self) -> None:
        """Return when no thread is left."""
        self._pool.shutdown(wait=True)


def disallowed_tokens(
    constraint: Constraint, stop_allowed: bool, stop_ids: Collection[int], vocab: int
) -> Tensor:
    """The tokens that must not come next, ``[vocab]`` booleans; at least one token is allowed.

    Args:
        constraint: asked for the allowed tokens.
        stop_allowed: whether the next token may be a stop token; without effect if only those are allowed.
        stop_ids: of the stop tokens.
        vocab: number of logits of the model.

    Raises:
        ValueError: the constraint allows no token.
    """
    words = np.ascontiguousarray(constraint.allowed(), "<i4")
    bits = np.unpackbits(words.view(np.uint8), count=vocab, bitorder="little")  # pads with zeros
    mask = torch.from_numpy(bits == 0)
    if not stop_allowed:
        without_stop = mask.clone()
        without_stop[[token_id for token_id in stop_ids if token_id < vocab]] = True
        mask = mask if without_stop.all() else without_stop
    if mask.all():
        raise ValueError("the constraint allows no token")
    return mask
