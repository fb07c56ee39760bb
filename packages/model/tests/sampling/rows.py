"""Rows for the sampler, written in one line."""

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

from gemma_model.engine_types import EngineSamplingParams
from gemma_model.sampling.penalties import TokenCounts
from gemma_model.sampling.sampler import SamplingRow


def row(temperature: float = 0.0, **rest: Any) -> SamplingRow:
    """A row with these sampling parameters and these fields of its own."""
    own = {name: rest.pop(name) for name in list(rest) if name in SamplingRow.__dataclass_fields__}
    return SamplingRow(params=EngineSamplingParams(temperature=temperature, **rest), **own)


def counts_of(ids: npt.NDArray[np.int64], counts: npt.NDArray[np.float32]) -> TokenCounts:
    """Counts that nobody has to count up to."""
    made = TokenCounts(ids.tolist())
    made._counts = array("f", counts.tolist())
    return made
