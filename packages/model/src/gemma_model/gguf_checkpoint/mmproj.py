"""The encoders of an ``mmproj`` file: their configuration, from its metadata and its tensors' shapes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gemma_model.gguf_checkpoint import audio_encoder, vision_encoder
from gemma_model.gguf_checkpoint.encoder_config import EncoderConfig
from gemma_model.gguf_checkpoint.encoder_tensors import Encoder, EncoderTensors
from gemma_model.gguf_checkpoint.media_processor import MediaProcessor
from gemma_wire.gguf import GGUF, read_gguf, refuse

ARCHITECTURE: Final = "clip"
PROJECTORS: Final = {"vision": "gemma3nv", "audio": "gemma3na"}
WHAT: Final = {"vision": "images", "audio": "audio"}
_MODEL_SIZE: Final = re.compile(r"E[24]B", re.IGNORECASE)


def read_mmproj(text_model: GGUF, text: Mapping[str, Any], path: Path) -> EncoderConfig:
    """The encoders of a file that fit a text model. A file may have one encoder alone.

    Args:
        text_model: the header of the text model.
        text: its ``config.json``.
        path: the ``mmproj`` file.

    Raises:
        InvalidRequest: the file is not supported, or is for another model; the message names the file, and
            the key or tensor.
    """
    return fit_encoders(read_gguf(path), text_model, text)


def fit_encoders(model: GGUF, text_model: GGUF, text: Mapping[str, Any]) -> EncoderConfig:
    """As ``read_mmproj``, with the header of the file."""
    path = model.files[0]
    if model.architecture != ARCHITECTURE:
        raise refuse(path, f"has the architecture {model.architecture!r}; encoders have {ARCHITECTURE!r}")
    _check_same_size(text_model, model)
    tensors = EncoderTensors(model)
    modalities = _modalities(model, tensors)
    processor = MediaProcessor.find(model, modalities, (path.parent, text_model.files[0].parent))
    ids = _token_ids(tensors, modalities, _text_vocabulary(text_model, text))
    encoders = _read_encoders(model, tensors, ids, text["hidden_size"], processor.audio_tokens)
    tensors.check({name: shape for encoder in encoders.values() for name, shape in encoder.shapes.items()})
    config = _complete_config(_complete_text(model, text, ids), encoders)
    images = encoders["vision"].soft_tokens if "vision" in encoders else 0
    sources = (*model.files, *processor.sources)
    return EncoderConfig(path, config, sources, processor.files(images), _media_tokens(encoders))


def _modalities(model: GGUF, tensors: EncoderTensors) -> list[str]:
    """Of images and audio those that the file has an encoder for."""
    file = model.files[0]
    prefixes = {"vision": vision_encoder.PREFIXES, "audio": audio_encoder.PREFIXES}
    found = [modality for modality, own in prefixes.items() if tensors.has_any(*own)]
    for modality in found:
        keys = (f"clip.{modality}.projector_type", "clip.projector_type")
        kind = next((model.metadata[key] for key in keys if key in model.metadata), "")
        if kind != PROJECTORS[modality]:
            shown = repr(kind) if isinstance(kind, str) else "another type"
            supported = f"only {PROJECTORS[modality]!r}, that of Gemma 3n, is supported"
            raise refuse(file, f"has the projector {shown} for {WHAT[modality]}; {supported}")
    if not found:
        raise refuse(file, "has no encoder of images or audio")
    return found


def _check_same_size(text_model: GGUF, model: GGUF) -> None:
    """Check the models' sizes if their names have them: encoders of E2B would load into E4B as well."""
    sizes = [_size(each) for each in (text_model, model)]
    if all(sizes) and sizes[0] != sizes[1]:
        raise refuse(model.files[0], f"is for {sizes[1]}, and {text_model.files[0].name} is {sizes[0]}")


def _size(model: GGUF) -> str:
    names = (str(model.metadata.get("general.name", "")), model.files[0].name)
    return next((match[0].upper() for name in names if (match := _MODEL_SIZE.search(name))), "")


def _text_vocabulary(model: GGUF, text: Mapping[str, Any]) -> int:
    """The number of token ids below those of the encoders; the second of these stands for an image."""
    tokens = model.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Sequence) and "<image_soft_token>" in tokens:
        return max(tokens.index("<image_soft_token>") - 1, 0)
    return int(text["vocab_size_per_layer_input"])


@dataclass(frozen=True)
class _TokenIds:
    """The token ids of the encoders: the first of all, the first of each encoder, and the end."""

    first: int
    vision: int | None
    audio: int | None
    end: int


def _token_ids(tensors: EncoderTensors, modalities: Sequence[str], first: int) -> _TokenIds:
    """The token ids. An encoder that is missing has as many as the other."""
    names = {"vision": "mm.embedding.weight", "audio": "mm.a.embedding.weight"}
    counts = {modality: tensors.shape(names[modality], 2)[0] for modality in modalities}
    vision, audio = (counts.get(modality, next(iter(counts.values()))) for modality in names)
    return _TokenIds(
        first,
        first if "vision" in modalities else None,
        first + vision if "audio" in modalities else None,
        first + vision + audio,
    )


def _complete_text(model: GGUF, text: Mapping[str, Any], ids: _TokenIds) -> dict[str, Any]:
    """The text model with the complete vocabulary. Its file may lack the rows of the encoders' ids."""
    rows = text["vocab_size"]
    if rows not in (ids.first, ids.end):
        raise refuse(
            model.files[0],
            f"has token ids from {ids.first:,} to {ids.end - 1:,}; the text model has {rows:,} rows of token "
            f"embeddings, not {ids.first:,} or {ids.end:,}",
        )
    return {
        **text,
        "architectures": None,
        "vocab_size": ids.end,
        "vocab_size_per_layer_input": min(ids.first, text["vocab_size_per_layer_input"]),
    }


def _read_encoders(
    model: GGUF, tensors: EncoderTensors, ids: _TokenIds, width: int, audio_tokens: int
) -> dict[str, Encoder]:
    encoders: dict[str, Encoder] = {}
    if ids.vision is not None:
        encoders["vision"] = vision_encoder.read_vision_encoder(model, tensors, ids.vision, width)
    if ids.audio is not None:
        encoders["audio"] = audio_encoder.read_audio_encoder(model, tensors, ids.audio, width, audio_tokens)
    return encoders


def _complete_config(text: Mapping[str, Any], encoders: Mapping[str, Encoder]) -> dict[str, Any]:
    """``config.json``."""
    sections = {f"{modality}_config": encoder.config for modality, encoder in encoders.items()}
    counts = {f"{name}_soft_tokens_per_image": encoder.soft_tokens for name, encoder in encoders.items()}
    ids = {
        f"{role}_token_id": encoders[modality].config["vocab_offset"] + place
        for modality, roles in {"vision": ("eoi", "image"), "audio": ("eoa", "audio")}.items()
        if modality in encoders
        for place, role in enumerate(roles)
    }
    return {
        "architectures": ["Gemma3nForConditionalGeneration"],
        "model_type": "gemma3n",
        "dtype": text["dtype"],
        "text_config": text,
        **sections,
        **counts,
        **ids,
    }


def _media_tokens(encoders: Mapping[str, Encoder]) -> dict[int, str]:
    """The first two tokens of each encoder."""
    names = {"vision": "image", "audio": "audio"}
    return {
        encoder.config["vocab_offset"] + place: token.format(names[modality])
        for modality, encoder in encoders.items()
        for place, token in enumerate(("<end_of_{}>", "<{}_soft_token>"))
    }
