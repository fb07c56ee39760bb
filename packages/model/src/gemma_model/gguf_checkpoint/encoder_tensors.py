"""The tensors of an ``mmproj`` file, to derive the encoders' sizes from their shapes and to check them."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gemma_model.gguf_checkpoint.mmproj_names import checkpoint_shape, usual_name
from gemma_wire import InvalidRequest
from gemma_wire.gguf import GGUF, TensorInfo, refuse

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Encoder:
    """One encoder with its embedder, as an ``mmproj`` file describes it.

    Args:
        config: its section of ``config.json``.
        shapes: its tensors, by their names in the file.
        soft_tokens: those of an image or an audio clip.
    """

    config: Mapping[str, Any]
    shapes: Mapping[str, Shape]
    soft_tokens: int


class EncoderTensors:
    """The tensors by their usual names, with the shapes that they have in a checkpoint.

    Args:
        model: the header of the file.

    Raises:
        InvalidRequest: a tensor is there under two names.
    """

    def __init__(self, model: GGUF) -> None:
        self._model = model
        self._infos = {usual_name(name): info for name, info in model.tensors.items()}
        if len(self._infos) != len(model.tensors):
            twice = next(info.name for info in model.tensors.values() if info.name != usual_name(info.name))
            raise self.wrong(f"has the tensor {twice!r} under two names")

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def has_any(self, *prefixes: str) -> bool:
        """Whether there is a tensor whose name begins with one of these."""
        return any(name.startswith(prefixes) for name in self._infos)

    def shape(self, name: str, dimensions: int) -> Shape:
        """The shape of a tensor in a checkpoint.

        Raises:
            InvalidRequest: it is missing, or has another number of dimensions.
        """
        if name not in self._infos:
            raise self.wrong(f"has no tensor {name!r}")
        shape = checkpoint_shape(name, self._infos[name].shape)
        if len(shape) != dimensions:
            raise self._wrong_shape(self._infos[name], f"{dimensions} dimensions are needed")
        return shape

    def block_counts(self) -> list[int]:
        """The number of blocks in each stage of the image encoder.

        Raises:
            InvalidRequest: a number is left out.
        """
        matches = (re.match(r"v\.blk\.(\d{1,4})\.(\d{1,4})\.", name) for name in self._infos)
        found = {(int(match[1]), int(match[2])) for match in matches if match}
        stages = {stage for stage, _ in found}
        counts = [sum(own == stage for own, _ in found) for stage in range(len(stages))]
        expected = {(stage, number) for stage, count in enumerate(counts) for number in range(count)}
        if found != expected or not counts:
            stage, number = min(found - expected, default=(0, 0))
            raise self.wrong(f"lacks blocks of the image encoder before v.blk.{stage}.{number}")
        return counts

    def check(self, shapes: Mapping[str, Shape]) -> None:
        """Check that these tensors are there with these shapes, and no others.

        Raises:
            InvalidRequest: naming a tensor.
        """
        if missing := shapes.keys() - self._infos.keys():
            raise self.wrong(f"lacks {len(missing)} tensors of its encoders, such as {min(missing)!r}")
        self._check_known(shapes.keys())
        for name, expected in shapes.items():
            info = self._infos[name]
            if checkpoint_shape(name, info.shape) != expected:
                raise self._wrong_shape(info, f"{list(expected)} is needed")

    def _check_known(self, names: Collection[str]) -> None:
        for name, info in self._infos.items():
            if name not in names:
                raise self.wrong(f"has the tensor {info.name!r}, which these encoders of Gemma 3n have not")

    def wrong(self, reason: str) -> InvalidRequest:
        """The error that the file cannot be used."""
        return refuse(self._model.files[0], reason)

    def _wrong_shape(self, info: TensorInfo, needed: str) -> InvalidRequest:
        return self.wrong(f"has the tensor {info.name!r} of shape {list(info.shape)}; {needed}")


def embedder_shapes(prefix: str, vocabulary: int, width: int, text_width: int) -> dict[str, Shape]:
    """The tensors of an embedder, which projects to the decoder's hidden size.

    Args:
        prefix: of their names.
        vocabulary: token ids of the encoder.
        width: of the encoder.
        text_width: hidden size of the decoder.
    """
    shapes: dict[str, Shape] = {
        "embedding": (vocabulary, width),
        "hard_emb_norm": (width,),
        "soft_emb_norm": (width,),
        "input_projection": (text_width, width),
    }
    return {f"{prefix}{name}.weight": shape for name, shape in shapes.items()}
