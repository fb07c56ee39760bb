"""Names and types of the tensors, as declared in ``config.pbtxt``."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MODEL: Final = "gemma3n"
"""The model's name in the repository."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tensor:
    """One tensor of the contract.

    Args:
        name: as in ``config.pbtxt``.
        data_type: ``TYPE_…`` as in ``config.pbtxt``.
        dims: ``1``, or ``-1`` for a list.
    """

    name: str
    data_type: str
    dims: int = 1
    optional: bool = True

    @property
    def dtype(self) -> "np.dtype[Any]":
        """The numpy dtype; STRING tensors hold ``bytes`` objects."""
        return _NUMPY[self.data_type]

    @property
    def wire_type(self) -> str:
        """The type's name in the KServe protocol."""
        return _KSERVE[self.data_type]


_NUMPY: dict[str, "np.dtype[Any]"] = {
    "TYPE_STRING": np.dtype(np.object_),
    "TYPE_INT32": np.dtype(np.int32),
    "TYPE_FP32": np.dtype(np.float32),
    "TYPE_BOOL": np.dtype(np.bool_),
}
_KSERVE = {"TYPE_STRING": "BYTES", "TYPE_INT32": "INT32", "TYPE_FP32": "FP32", "TYPE_BOOL": "BOOL"}

PROMPT: Final = Tensor("prompt", "TYPE_STRING")
MESSAGES: Final = Tensor("messages", "TYPE_STRING")
IMAGES: Final = Tensor("images", "TYPE_STRING", dims=-1)
AUDIO: Final = Tensor("audio", "TYPE_STRING", dims=-1)
MAX_TOKENS: Final = Tensor("max_tokens", "TYPE_INT32")
TEMPERATURE: Final = Tensor("temperature", "TYPE_FP32")
TOP_P: Final = Tensor("top_p", "TYPE_FP32")
STREAM: Final = Tensor("stream", "TYPE_BOOL")
OPTIONS: Final = Tensor("options", "TYPE_STRING")

INPUTS: Final = (PROMPT, MESSAGES, IMAGES, AUDIO, MAX_TOKENS, TEMPERATURE, TOP_P, STREAM, OPTIONS)
INPUTS_BY_NAME: Final = {tensor.name: tensor for tensor in INPUTS}

TEXT: Final = Tensor("text", "TYPE_STRING", optional=False)
CHUNK: Final = Tensor("chunk", "TYPE_STRING", optional=False)

OUTPUTS: Final = (TEXT, CHUNK)


def pack(tensor: Tensor, values: list[Any]) -> Array:
    """A 1-D array ``[len(values)]`` of the tensor's dtype; text becomes UTF-8 bytes."""
    if tensor.data_type == "TYPE_STRING":
        values = [v.encode() if isinstance(v, str) else v for v in values]
    array = np.empty(len(values), dtype=tensor.dtype)
    array[:] = values
    return array


def unpack(array: Array) -> list[Any]:
    """The elements of a tensor of any shape, as Python values."""
    return list(array.reshape(-1).tolist())
