"""Finds a checkpoint's folder and reads its JSON files; no weights, no torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma_model.engine_types import EngineSamplingParams, Modality
from gemma_model.families import Family, family_of
from gemma_model.gguf_checkpoint import prepare_folder
from gemma_wire import InvalidRequest
from gemma_wire.gguf_sources import choose_files, is_gguf, read_reference, split_hub_id

MAX_LAYERS = 1000
"""Far more than any model has; lists with a value for each layer are made before the weights are read."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder in the layout of the published checkpoints.

    Args:
        config: ``config.json``.
        defaults: sampling parameters that ``generation_config.json`` recommends.
        eos_token_ids: ids that end an output.
        context_length: maximum tokens of prompt and output together.
        text_only: its towers, if it has any, are not used.
    """

    folder: Path
    config: Mapping[str, Any] = field(repr=False)
    defaults: EngineSamplingParams
    eos_token_ids: frozenset[int]
    context_length: int
    text_only: bool = False

    @property
    def family(self) -> Family:
        """The model family."""
        return family_of(self.config)

    @property
    def soft_tokens(self) -> dict[Modality, int]:
        """The supported media, and the number of soft tokens of each image or audio clip."""
        towers: dict[Modality, tuple[str, int]] = {"image": ("vision", 256), "audio": ("audio", 188)}
        return {  # The key is called "per_image" for audio as well.
            modality: integer(self.config, f"{tower}_soft_tokens_per_image", default, section="config")
            for modality, (tower, default) in towers.items()
            if self.config.get(f"{tower}_config") and not self.text_only and self.family.has_encoders
        }

    @property
    def vocabulary(self) -> int:
        """Number of logits of the model."""
        return integer(text_part(self.config), "vocab_size", self.family.vocab_size)

    @property
    def tokenizer_config(self) -> dict[str, Any]:
        """``tokenizer_config.json``, with the chat template from whichever file has it; may be empty."""
        name = "tokenizer_config.json"
        config = _read(self.folder / name) if _has(self.folder, name) else {}
        if _has(self.folder, "chat_template.jinja"):
            config["chat_template"] = (self.folder / "chat_template.jinja").read_text(encoding="utf-8")
        elif _has(self.folder, "chat_template.json"):
            config |= _read(self.folder / "chat_template.json")
        return {**config, "model_max_length": self.context_length}


def open_checkpoint(folder: Path, max_model_len: int | None = None, *, text_only: bool = False) -> Checkpoint:
    """Read the JSON files.

    Args:
        folder: of the checkpoint.
        max_model_len: a shorter context than the checkpoint's own, in tokens.
        text_only: support neither images nor audio.

    Raises:
        InvalidRequest: names the wrong file or setting.
    """
    config = read_config(folder)
    generation = _read(folder / "generation_config.json") if _has(folder, "generation_config.json") else {}
    own = integer(text_part(config), "max_position_embeddings", family_of(config).max_position_embeddings)
    if max_model_len is not None and max_model_len > own:
        raise InvalidRequest(f"{max_model_len} is more than the checkpoint's {own} tokens", "max_model_len")
    return Checkpoint(
        folder=folder,
        config=config,
        defaults=_defaults(generation),
        eos_token_ids=_ids(generation.get("eos_token_id", config.get("eos_token_id"))),
        context_length=max_model_len or own,
        text_only=text_only,
    )


def find_folder(
    name: str, checkpoint: Path | None, encoders: Path | None = None, *, text_only: bool = False
) -> Path:
    """The folder ``checkpoint``, or ``name`` if it is a folder, or the hub's snapshot (downloaded if needed).

    Both may also be a GGUF file, or a folder with one; the result is the folder that represents it.

    Args:
        name: a hub id, a folder or a file.
        checkpoint: a folder or a file, instead of ``name``.
        encoders: for a GGUF file, where the encoders are; see ``gguf_checkpoint``.
        text_only: for a GGUF file, use no encoders.

    Raises:
        InvalidRequest: there is nothing with that name, or the GGUF file is not supported.
    """
    path = checkpoint or Path(name)
    if not name and checkpoint is None:
        raise InvalidRequest("is not set; it must be a folder, a GGUF file or a hub id", "MODEL_NAME")
    if is_gguf(path):
        return prepare_folder(path, encoders=encoders, text_only=text_only)
    is_folder = checkpoint is not None or path.is_dir()
    represents_gguf = is_folder and read_reference(path)[0]
    if encoders is not None and not represents_gguf and (is_folder or not split_hub_id(name)[1]):
        raise InvalidRequest(
            "is only for GGUF files; other checkpoints have encoders of their own", "encoders"
        )
    return path if is_folder else _download(name, encoders, text_only)


def _download(name: str, encoders: Path | None, text_only: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415 - slow, and rarely needed
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    repo_id, selected = split_hub_id(name)
    try:
        if not selected:
            return Path(snapshot_download(repo_id, allow_patterns=["*.json", "*.safetensors", "*.jinja"]))
        files = choose_files(repo_id, HfApi().list_repo_files(repo_id), selected)
        folder = Path(snapshot_download(repo_id, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidRequest(f"there is no folder or hub model {name!r}: {reason}", "MODEL_NAME") from None
    return prepare_folder(folder / files[0], encoders=encoders, text_only=text_only)


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json``.

    Raises:
        InvalidRequest: it cannot be read.
    """
    return _read(folder / "config.json")


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """``text_config`` of a complete ``config.json``, or the file of a text model alone.

    Raises:
        InvalidRequest: it is not an object.
    """
    text = config.get("text_config") or config
    if not isinstance(text, Mapping):
        raise InvalidRequest("is not a JSON object", "config.text_config")
    return text


def integer(
    config: Mapping[str, Any],
    key: str,
    default: int,
    *,
    least: int = 1,
    most: int | None = None,
    section: str = "text_config",
) -> int:
    """The value of a key of ``config.json``; ``default`` is that of transformers.

    Args:
        config: a section of the file.
        key: of the section.
        default: if there is no such key.
        least: the smallest valid value.
        most: the largest valid value, if there is one.
        section: its name, for the error message.

    Raises:
        InvalidRequest: the value is not an integer of at least ``least`` and at most ``most``.
    """
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidRequest(f"{value!r} is not an integer of at least {least}", f"{section}.{key}")
    if most is not None and value > most:
        raise InvalidRequest(f"{value} is more than {most}, the limit", f"{section}.{key}")
    return value


def positive(config: Mapping[str, Any], key: str, default: float) -> float:
    """The value of a key of the text part of ``config.json``; ``default`` is that of transformers.

    Raises:
        InvalidRequest: it is not a finite number above 0.
    """
    value = config.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise InvalidRequest(f"{value!r} is not a finite number above 0", f"text_config.{key}")
    return float(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read {path}: {error}", "MODEL_NAME") from None
    if not isinstance(content, dict):
        raise InvalidRequest(f"{path} is not a JSON object", "MODEL_NAME")
    return content


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def _defaults(generation: Mapping[str, Any]) -> EngineSamplingParams:
    """The recommendation of ``generation_config.json``; greedy with ``do_sample: false``."""
    if not generation.get("do_sample", True):
        return EngineSamplingParams(temperature=0.0)
    return EngineSamplingParams(
        temperature=float(generation.get("temperature") or 1.0),
        top_k=int(generation.get("top_k") or 0),
        top_p=float(generation.get("top_p") or 1.0),
    )


def _ids(value: int | list[int] | None) -> frozenset[int]:
    if value is None:
        return frozenset()
    return frozenset([value] if isinstance(value, int) else value)
