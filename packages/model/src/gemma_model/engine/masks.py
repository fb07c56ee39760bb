"""What constraints allow, found out in other threads while the model runs."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from gemma_model.engine.choice import Choice
from gemma_model.engine.plan import Row
from gemma_model.engine.sequence import Name

THREADS = 4


class Masks:
    """Asks the constraints of those that have one.

    Args:
        vocab: as many tokens as the model has logits.
    """

    def __init__(self, vocab: int) -> None:
        self._vocab = vocab
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="constraint")  # none runs before it must

    def ask(self, rows: Iterable[Row], choices: Mapping[Name, Choice]) -> dict[Name, Future[Tensor]]:
        """Begin to find out what must not come in these rows; see ``forbidden``."""
        return {
            row.name: self._pool.submit(forbidden, choice, row.may_stop, self._vocab)
            for row in rows
            if (choice := choices[row.name]).constraint is not None
        }

    def close(self) -> None:
        """Return when no thread is left."""
        self._pool.shutdown(wait=True)


def forbidden(choice: Choice, may_stop: bool, vocab: int) -> Tensor:
    """What must not be the next token, ``[vocab]`` booleans; something always may.

    Raises:
        ValueError: when the constraint allows nothing.
    """
    assert choice.constraint is not None
    words = np.ascontiguousarray(choice.constraint.allowed(), "<i4")
    bits = np.unpackbits(words.view(np.uint8), count=vocab, bitorder="little")  # pads with zeros
    mask = torch.from_numpy(bits == 0)
    if not may_stop:
        longer = mask.clone()
        longer[[token_id for token_id in choice.generation.stop_token_ids if token_id < vocab]] = True
        mask = mask if longer.all() else longer  # where the constraint demands an end, it has its way
    if mask.all():
        raise ValueError("the constraint allows no token at all")
    return mask
