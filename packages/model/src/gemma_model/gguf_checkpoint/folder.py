"""The folder that represents a GGUF file: configuration, tokenizer, and the names of the GGUF files."""

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gemma_model.gguf_checkpoint import gemma3, gemma3n
from gemma_model.gguf_checkpoint.encoder_config import EncoderConfig
from gemma_model.gguf_checkpoint.encoders import find_encoders
from gemma_model.gguf_checkpoint.shapes import check_tensors
from gemma_model.gguf_checkpoint.tokenizer import build_tokenizer, token_id, with_tokens
from gemma_wire import InvalidRequest
from gemma_wire.gguf import GGUF, read_gguf, refuse
from gemma_wire.gguf_sources import REFERENCE, find_model

CACHE: Final = Path("~/.cache/gemma-triton/gguf")
ARCHITECTURES: Final[Mapping[str, Callable[[GGUF], dict[str, Any]]]] = {
    "gemma3": gemma3.build_config,
    "gemma3n": gemma3n.build_config,
}
NEIGHBOURS: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
"""Files beside a GGUF file that are used instead of its metadata, if the tokenizer is the same."""
END_OF_TURN: Final = "<end_of_turn>"


def prepare_folder(
    path: Path, cache: Path = CACHE, encoders: Path | None = None, *, text_only: bool = False
) -> Path:
    """The folder that represents a GGUF file; made if it does not exist.

    Args:
        path: the file, one of its parts, or a folder with one model.
        cache: where such folders are kept. If nothing can be written there, they are in the folder for
            temporary files.
        encoders: where the encoders of images and audio are; see ``find_encoders``.
        text_only: use no encoders.

    Raises:
        InvalidRequest: the file is not supported, or the encoders do not fit; the message names the file, and
            the key or tensor.
    """
    model = read_gguf(find_model(path.expanduser().absolute()))
    config = _config(model)
    found = None if text_only else find_encoders(model, config, encoders)
    config = config if found is None else dict(found.config)
    name = _digest(model, found)
    temporary = _temporary_cache()
    for parent in (cache.expanduser(), *([temporary] if _is_own(temporary) else [])):
        folder = parent / name
        if (folder / REFERENCE).is_file():
            return folder
        with suppress(OSError):  # a read-only file system, or a full one
            _write(folder, model, config, found)
            return folder
    raise InvalidRequest(
        f"cannot write to {cache}; and not to {temporary}, or other users can as well", "MODEL_NAME"
    )


def _config(model: GGUF) -> dict[str, Any]:
    build = ARCHITECTURES.get(model.architecture)
    if build is None:
        supported = " and ".join(ARCHITECTURES)
        hint = "; it has encoders, so name the file of the text model" if model.architecture == "clip" else ""
        raise refuse(
            model.files[0],
            f"has the architecture {model.architecture!r}; only {supported} are supported{hint}",
        )
    config = build(model)
    check_tensors(model, config)
    return config


def _write(folder: Path, model: GGUF, config: Mapping[str, Any], encoders: EncoderConfig | None) -> None:
    """Write the folder, completely or not at all; another process may do the same at the same time."""
    files = _files(model, config, encoders)
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unfinished-") as unfinished:
        made = Path(unfinished) / folder.name
        made.mkdir()
        for name, content in files.items():
            (made / name).write_text(content, encoding="utf-8")
        try:
            made.rename(folder)
        except OSError:
            if not (folder / REFERENCE).is_file():
                raise


def _files(model: GGUF, config: Mapping[str, Any], encoders: EncoderConfig | None) -> dict[str, str]:
    """The names and contents of all files."""
    neighbours = _neighbours(model)
    if encoders is not None:
        neighbours |= _files_of_encoders(model, encoders)
    if "tokenizer.json" not in neighbours:
        tokenizer = with_tokens(build_tokenizer(model), encoders.tokens if encoders else {})
        neighbours["tokenizer.json"] = json.dumps(tokenizer, ensure_ascii=False)
    ends = _end_ids(model, json.loads(neighbours["tokenizer.json"]))
    template = model.metadata.get("tokenizer.chat_template")
    own = {
        "config.json": json.dumps({**config, "eos_token_id": ends}, indent=1),
        "generation_config.json": json.dumps(_generation_config(model, ends)),
        "tokenizer_config.json": json.dumps(_tokenizer_config()),
        **({"chat_template.jinja": template} if isinstance(template, str) else {}),
        REFERENCE: json.dumps(
            {
                "files": [str(file) for file in model.files],
                "encoders": None if encoders is None else str(encoders.path),
            }
        ),
    }
    return own | neighbours


def _neighbours(model: GGUF) -> dict[str, str]:
    """Files beside the GGUF file, if their tokenizer has the same tokens."""
    folder = model.files[0].parent
    texts = {
        name: (folder / name).read_text(encoding="utf-8") for name in NEIGHBOURS if (folder / name).is_file()
    }
    return texts if "tokenizer.json" in texts and _agrees(texts["tokenizer.json"], model) else {}


def _files_of_encoders(model: GGUF, encoders: EncoderConfig) -> dict[str, str]:
    """The files for images and audio. A checkpoint has a tokenizer too, with their tokens."""
    tokenizer = encoders.files.get("tokenizer.json")
    if encoders.path.is_dir() and (tokenizer is None or not _agrees(tokenizer, model)):
        raise InvalidRequest(
            f"{encoders.path} has no tokenizer.json with the tokens of the GGUF file", "encoders"
        )
    return dict(encoders.files)


def _agrees(serialized: str, model: GGUF) -> bool:
    """Whether a tokenizer gives the tokens the ids that they have in the file."""
    tokens = model.metadata.get("tokenizer.ggml.tokens")
    if tokens is None or isinstance(tokens, int | float | str):
        return True  # there is no other tokenizer
    try:
        vocab = json.loads(serialized)["model"]["vocab"]
        agreeing = sum(vocab.get(token) == id_ for id_, token in enumerate(tokens))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return bool(agreeing > 0.9 * len(vocab))  # spaces and added tokens are written in several ways


def _end_ids(model: GGUF, tokenizer: Mapping[str, Any]) -> list[int]:
    """The ids that end an output: those that the file names, and the end of a turn."""
    named = (token_id(model, role) for role in ("eos", "eot"))
    added = (token["id"] for token in tokenizer["added_tokens"] if token["content"] == END_OF_TURN)
    return sorted({id_ for id_ in (*named, *added) if id_ is not None})


def _generation_config(model: GGUF, ends: list[int]) -> dict[str, Any]:
    """Sampling parameters as the published checkpoints recommend them."""
    ids = {f"{name}_token_id": token_id(model, role) for name, role in (("bos", "bos"), ("pad", "padding"))}
    return {**ids, "eos_token_id": ends, "do_sample": True, "top_k": 64, "top_p": 0.95}


def _tokenizer_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "GemmaTokenizer",
        **{f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk", "mask")},
        "clean_up_tokenization_spaces": False,
    }


def _digest(model: GGUF, encoders: EncoderConfig | None) -> str:
    """Of all that the folder depends on: which files there are, and this code."""
    beside = [model.files[0].parent / name for name in NEIGHBOURS]
    own = () if encoders is None else encoders.sources
    files = (*model.files, *own, *(path for path in beside if path.is_file()))
    stats = ((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    code = (path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(repr((*stats, *code)).encode()).hexdigest()[:16]


def _temporary_cache() -> Path:
    return Path(tempfile.gettempdir()) / f"gemma-triton-gguf-{os.getuid()}"


def _is_own(folder: Path) -> bool:
    """Whether a folder does not exist yet, or is one that no other user can write to."""
    try:
        status = folder.lstat()
    except OSError:
        return True
    writable_for_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not writable_for_others
