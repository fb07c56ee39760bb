"""What an answer in the making knows of itself beside its plan: its tokens, counted, and its constraint."""

from array import array
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from gemma_model.protocol import Generation, Sampling

Ids = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float32]


class Tally:
    """The different tokens of a text, and how often each stands in its answer.

    A new token is counted in constant time, however long the text is.

    Args:
        prompt: its tokens; those that nobody will ask for can be left out.
    """

    def __init__(self, prompt: Iterable[int] = ()) -> None:
        self._ids = array("q", sorted(set(prompt)))
        self._counts = array("f", bytes(4 * len(self._ids)))
        self._places = {token_id: place for place, token_id in enumerate(self._ids)}

    def add(self, token_id: int) -> None:
        """Count a token of the answer."""
        place = self._places.setdefault(token_id, len(self._ids))
        if place == len(self._ids):
            self._ids.append(token_id)
            self._counts.append(0.0)
        self._counts[place] += 1

    @property
    def ids(self) -> Ids:
        """Each token once, ``[different tokens]``."""
        return np.array(self._ids, np.int64)

    @property
    def counts(self) -> Numbers:
        """How often it stands in the answer, ``[different tokens]``."""
        return np.array(self._counts, np.float32)


class Choice:
    """One of the answers to a request.

    Args:
        generation: the request, with a seed.
        index: which of its choices.
    """

    def __init__(self, generation: Generation, index: int) -> None:
        self.generation, self.index = generation, index
        sampling = generation.sampling
        self.tally = _tally(sampling, generation.prompt.token_ids)
        self.bias = _bias(sampling) if sampling.logit_bias else None
        self.constraint = generation.constraint and generation.constraint.fork()

    def take(self, token_id: int) -> None:
        """Take in a new token."""
        if self.tally is not None:
            self.tally.add(token_id)
        if self.constraint is not None and token_id not in self.generation.stop_token_ids:
            self.constraint.advance(token_id)


def _tally(sampling: Sampling, prompt: Iterable[int]) -> Tally | None:
    if sampling.repetition_penalty != 1:
        return Tally(prompt)
    return Tally() if sampling.frequency_penalty or sampling.presence_penalty else None


def _bias(sampling: Sampling) -> tuple[Ids, Numbers]:
    ids, values = zip(*sampling.logit_bias.items(), strict=True)
    return np.array(ids, np.int64), np.array(values, np.float32)
