"""Finds the encoders of images and audio for a text model in a GGUF file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma_model.gguf_checkpoint.checkpoint_encoders import read_checkpoint_encoders, wrong_encoders
from gemma_model.gguf_checkpoint.encoder_config import EncoderConfig
from gemma_model.gguf_checkpoint.mmproj import read_mmproj
from gemma_wire import InvalidRequest
from gemma_wire.gguf import GGUF
from gemma_wire.gguf_sources import find_mmproj


def find_encoders(model: GGUF, text: Mapping[str, Any], path: Path | None) -> EncoderConfig | None:
    """The encoders for a text model.

    Args:
        model: the header of the text model.
        text: its ``config.json``.
        path: a checkpoint's folder, an ``mmproj`` file or its folder; ``None``: the ``mmproj`` file beside
            the text model, if there is one.

    Raises:
        InvalidRequest: they are not supported, or do not fit the text model.
    """
    supported = text["model_type"] == "gemma3n_text"
    if path is not None:
        if not supported:
            raise wrong_encoders(
                f"{text['model_type']} has no encoders of images and audio; only Gemma 3n has"
            )
        return _given_encoders(model, text, path.expanduser().absolute())
    found = find_mmproj(model.files[0]) if supported else None
    if found is None:
        return None
    try:
        return read_mmproj(model, text, found)
    except InvalidRequest as error:
        advice = "set GEMMA_ENCODERS to another file, or GEMMA_TOWERS=none for text alone"
        raise wrong_encoders(f"{error.message}; {advice}") from None


def _given_encoders(model: GGUF, text: Mapping[str, Any], path: Path) -> EncoderConfig:
    if path.is_dir() and not (path / "config.json").is_file() and (found := find_mmproj(path)):
        path = found
    try:
        return (
            read_mmproj(model, text, path) if path.suffix == ".gguf" else read_checkpoint_encoders(text, path)
        )
    except InvalidRequest as error:
        raise wrong_encoders(error.message) from None
