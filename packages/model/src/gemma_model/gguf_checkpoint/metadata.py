"""The metadata of a GGUF file, with checks of types and values."""

import math
from collections.abc import Sequence

from gemma_wire import InvalidRequest
from gemma_wire.gguf import GGUF, Value, refuse


class Metadata:
    """The metadata of a model.

    Args:
        model: its header.
    """

    def __init__(self, model: GGUF) -> None:
        self._model = model

    def integer(self, key: str, default: int | None = None, least: int = 1, most: int | None = None) -> int:
        """An integer of at least ``least`` and at most ``most``.

        Args:
            key: without the name of the architecture.
            default: if there is no such key; ``None``: there must be one.
            least: the smallest valid value.
            most: the largest valid value, if there is one.

        Raises:
            InvalidRequest: naming the file and the key.
        """
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._wrong(key, value, f"an integer of at least {least}")
        if most is not None and value > most:
            raise self._wrong(key, value, f"an integer of at most {most:,}")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """A finite number above 0; fp32 in the file, so it is rounded to 7 digits.

        Raises:
            InvalidRequest: naming the file and the key.
        """
        value = self._get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise self._wrong(key, value, "a finite number above 0")
        return float(f"{value:.7g}")

    def numbers(self, key: str, count: int) -> Sequence[float] | None:
        """An array of so many numbers or booleans; a single value stands for all; ``None``: no such key.

        Raises:
            InvalidRequest: naming the file and the key.
        """
        value = self.get(key)
        if value is None:
            return None
        values = [value] * count if isinstance(value, int | float) else value
        if isinstance(values, str) or len(values) != count:
            raise self._wrong(key, value, f"an array of {count} numbers")
        return [self._number(key, one) for one in values]

    def get(self, key: str) -> Value | None:
        """The value of a key of the architecture, or ``None``."""
        return self._model.metadata.get(self._full(key))

    def _number(self, key: str, value: Value) -> float:
        if not isinstance(value, int | float):
            raise self._wrong(key, value, "an array of numbers")
        return value

    def _get(self, key: str, default: float | None) -> Value:
        value = self.get(key)
        value = default if value is None else value
        if value is None:
            raise refuse(self._model.files[0], f"has no metadata key {self._full(key)!r}")
        return value

    def _full(self, key: str) -> str:
        return f"{self._model.architecture}.{key}"

    def _wrong(self, key: str, value: Value, wanted: str) -> InvalidRequest:
        shown = repr(value) if isinstance(value, int | float) else "another value"
        return refuse(self._model.files[0], f"has {shown} for {self._full(key)!r}, not {wanted}")


def shape_of(model: GGUF, name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor.

    Raises:
        InvalidRequest: the model does not have it, or it has another number of dimensions.
    """
    info = model.tensors.get(name)
    if info is None:
        raise refuse(model.files[0], f"has no tensor {name!r}, which {model.architecture} needs")
    if len(info.shape) != dimensions:
        raise refuse(info.file, f"has the tensor {name!r} of shape {list(info.shape)}, not {dimensions}-dim.")
    return info.shape
