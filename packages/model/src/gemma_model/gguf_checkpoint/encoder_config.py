"""The encoders of images and audio that a text model in a GGUF file is used with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class EncoderConfig:
    """Encoders that fit a text model.

    Args:
        path: the folder of a checkpoint, or the ``mmproj`` file.
        config: the complete ``config.json``, with that of the text model.
        sources: the files that were read.
        files: the names and contents of files for images and audio.
        tokens: tokens of images and audio by their ids, for a tokenizer that lacks them.
    """

    path: Path
    config: Mapping[str, Any]
    sources: tuple[Path, ...]
    files: Mapping[str, str]
    tokens: Mapping[int, str] = field(default_factory=dict)
