"""The encoders of another checkpoint for a GGUF file: the file has the text model alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gemma_wire import InvalidRequest

SECTIONS: Final = ("vision_config", "audio_config")
"""What ``config.json`` of a checkpoint with encoders has."""
COPIED: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
)
"""Files that belong to the encoders, and the tokenizer, which has the tokens of images and audio."""
SAME: Final = ("hidden_size", "vocab_size")
"""What the text models of both must have in common."""


def add_encoders(text: Mapping[str, Any], encoders: Path) -> dict[str, Any]:
    """``config.json`` of a text model with the encoders of another checkpoint.

    Args:
        text: of the GGUF file.
        encoders: the folder of the checkpoint.

    Raises:
        InvalidRequest: it has no encoders, or they do not fit the text model.
    """
    config = _read(encoders / "config.json")
    own = config.get("text_config")
    if text.get("model_type") != "gemma3n_text":
        raise _wrong(f"{text.get('model_type')} has no encoders of images and audio; only Gemma 3n has")
    if not isinstance(own, dict) or not all(isinstance(config.get(name), dict) for name in SECTIONS):
        raise _wrong(f"{encoders} has no encoders: config.json lacks text_config, {' or '.join(SECTIONS)}")
    for key in SAME:
        if own.get(key) != text[key]:
            raise _wrong(f"{key} is {own.get(key)} in {encoders}, and {text[key]} in the GGUF file")
    kept = {key: value for key, value in config.items() if key != "quantization_config"}
    return {**kept, "text_config": {**text, "architectures": None}}


def read_copied_files(encoders: Path) -> dict[str, str]:
    """The names and contents of the files to copy."""
    files = (encoders / name for name in COPIED)
    return {file.name: file.read_text(encoding="utf-8") for file in files if file.is_file()}


def _read(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _wrong(f"cannot read {file}: {error}") from None
    if not isinstance(config, dict):
        raise _wrong(f"{file} is not a JSON object")
    return config


def _wrong(message: str) -> InvalidRequest:
    return InvalidRequest(message, "encoders")
