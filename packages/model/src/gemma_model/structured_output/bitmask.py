"""The tokens that constraints disallow, computed in other threads while the model runs."""

from collections.abc import Collection, Sequence
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

    def submit(
        self,
        constraint: Constraint,
        draft: Sequence[int],
        stop_allowed: Sequence[bool],
        stop_ids: Collection[int],
    ) -> Future[list[Tensor]]:
        """Start to compute bitmasks; see ``disallowed_along``."""
        return self._pool.submit(disallowed_along, constraint, draft, stop_allowed, stop_ids, self._vocab)

    def close(self) -> None:
        """Wait until all threads have ended."""
        self._pool.shutdown(wait=True)


def disallowed_along(
    constraint: Constraint,
    draft: Sequence[int],
    stop_allowed: Sequence[bool],
    stop_ids: Collection[int],
    vocab: int,
) -> list[Tensor]:
    """The tokens that must not come next, and those after each token of a draft.

    They end before a token of the draft that cannot come, or if a later mask cannot be computed: the token
    before it can be sampled nevertheless, and the error comes again when it is the next one.

    Args:
        constraint: its state does not change.
        draft: tokens that may come next.
        stop_allowed: for the next token, and for the one after each token of the draft.
        stop_ids: of the stop tokens.
        vocab: number of logits of the model.

    Raises:
        ValueError: the constraint allows no next token.
    """
    masks = [disallowed_tokens(constraint, stop_allowed[0], stop_ids, vocab)]
    ahead = constraint.fork() if draft else constraint
    for token_id, may_stop in zip(draft, stop_allowed[1:], strict=True):
        if token_id in stop_ids or token_id >= vocab or masks[-1][token_id]:
            break
        try:
            ahead.advance(token_id)
            masks.append(disallowed_tokens(ahead, may_stop, stop_ids, vocab))
        except Exception:
            break
    return masks


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
