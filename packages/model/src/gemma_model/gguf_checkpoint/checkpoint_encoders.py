"""The encoders of another checkpoint for a text model in a GGUF file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gemma_model.gguf_checkpoint.encoder_config import EncoderConfig
from gemma_wire import InvalidRequest
from gemma_wire.gguf_sources import OTHER_FILES

SECTIONS: Final = ("vision_config", "audio_config")
"""What ``config.json`` of a checkpoint with encoders has."""
COPIED: Final = (*OTHER_FILES, "chat_template.json")
"""Files that belong to the encoders, and the tokenizer, which has the tokens of images and audio."""
FIRST_TOKEN, VOCABULARY = 262_144, 262_400
"""``vocab_offset`` of images and ``vocab_size``, if the file does not have them."""


def read_checkpoint_encoders(text: Mapping[str, Any], folder: Path) -> EncoderConfig:
    """The encoders of a checkpoint.

    Args:
        text: ``config.json`` of the text model.
        folder: of the checkpoint.

    Raises:
        InvalidRequest: it has no encoders, or they do not fit the text model.
    """
    config = _read(folder / "config.json")
    own = config.get("text_config")
    if not isinstance(own, dict) or not all(isinstance(config.get(name), dict) for name in SECTIONS):
        raise wrong_encoders(
            f"{folder} has no encoders: config.json lacks text_config, {' or '.join(SECTIONS)}"
        )
    if own.get("hidden_size") != text["hidden_size"]:
        raise _differs("hidden_size", own, folder, text)
    rows, complete = text["vocab_size"], own.get("vocab_size", VOCABULARY)
    if rows not in (complete, config["vision_config"].get("vocab_offset", FIRST_TOKEN)):
        raise _differs("vocab_size", own, folder, text)
    kept = {key: value for key, value in config.items() if key != "quantization_config"}
    config = {**kept, "text_config": {**text, "architectures": None, "vocab_size": complete}}
    sources = [path for name in ("config.json", *COPIED) if (path := folder / name).is_file()]
    files = {path.name: path.read_text(encoding="utf-8") for path in sources if path.name in COPIED}
    return EncoderConfig(folder, config, tuple(sources), files)


def wrong_encoders(message: str) -> InvalidRequest:
    """The error that encoders cannot be used."""
    return InvalidRequest(message, "encoders")


def _differs(key: str, own: Mapping[str, Any], folder: Path, text: Mapping[str, Any]) -> InvalidRequest:
    return wrong_encoders(f"{key} is {own.get(key)} in {folder}, and {text[key]} in the GGUF file")


def _read(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise wrong_encoders(f"cannot read {file}: {error}") from None
    if not isinstance(config, dict):
        raise wrong_encoders(f"{file} is not a JSON object")
    return config
