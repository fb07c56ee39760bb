"""Which GGUF files a MODEL_NAME means: a file, a folder, or some files of a hub model."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from gemma_wire.errors import InvalidRequest
from gemma_wire.gguf import SPLIT_NAME, split_files

REFERENCE: Final = "gguf.json"
"""The file that names the GGUF files, in a folder that represents them."""
OTHER_WEIGHTS: Final = ("model.safetensors", "model.safetensors.index.json", REFERENCE)
PROCESSOR_FILES: Final = ("processor_config.json", "preprocessor_config.json")
OTHER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", *PROCESSOR_FILES)
"""Files of a hub model that are downloaded with its GGUF files."""

_FORMAT: Final = re.compile(r"[-._](?:(UD)-)?(I?Q\d\w*|BF16|F16|F32)$", re.IGNORECASE)
_MMPROJ_FORMATS: Final = ("bf16", "f16", "q8_0", "f32")  # the first is preferred
_MAX_SHOWN: Final = 20


def is_gguf(path: Path) -> bool:
    """Whether the path is a GGUF file, or a folder with GGUF files and no other weights."""
    if not path.is_dir():
        return path.suffix == ".gguf"
    return not any((path / name).exists() for name in OTHER_WEIGHTS) and any(path.glob("*.gguf"))


def read_reference(folder: Path) -> tuple[list[Path], Path | None]:
    """The GGUF files that a folder represents, and where its encoders are; none for another folder.

    The encoders are in the folder of a checkpoint, or in an ``mmproj`` file.

    Raises:
        InvalidRequest: the reference cannot be read.
    """
    reference = folder / REFERENCE
    if not reference.is_file():
        return [], None
    try:
        content = json.loads(reference.read_text(encoding="utf-8"))
        encoders = content["encoders"]
        return [Path(name) for name in content["files"]], Path(encoders) if encoders else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"{reference} is damaged ({error}); delete its folder", "MODEL_NAME") from None


def find_model(path: Path) -> Path:
    """The file of the text model: the path itself, or the only one in a folder; of several parts the first.

    Raises:
        InvalidRequest: the folder has none, or several.
    """
    if not path.is_dir():
        return split_files(path)[0]
    found = sorted({split_files(file)[0] for file in path.glob("*.gguf") if not is_mmproj(file.name)})
    if len(found) != 1:
        raise InvalidRequest(
            f"{path} has {len(found)} GGUF files of text models ({_listed([f.name for f in found])}); "
            "set MODEL_NAME to one of its files",
            "MODEL_NAME",
        )
    return found[0]


def find_mmproj(model: Path) -> Path | None:
    """The file with the encoders of a text model: the one beside it, of several that of the preferred format.

    A hub model may have its text models in folders and the file with the encoders above them.

    Args:
        model: the file of the text model, or a folder.
    """
    folder = model if model.is_dir() else model.parent
    is_in_hub_model = folder.parent.parent.name == "snapshots"
    for each in (folder, *([folder.parent] if is_in_hub_model else [])):
        if found := _encoders([file.name for file in each.glob("*.gguf")]):
            return each / found[0]
    return None


def is_mmproj(name: str) -> bool:
    """Whether a file has encoders of images and audio: its name says so."""
    return "mmproj" in name.lower()


def served_name(file: Path) -> str:
    """What clients call the model of a file: its name without the number of the part and without .gguf."""
    match = SPLIT_NAME.fullmatch(file.name)
    return match["stem"] if match else file.stem


def split_hub_id(name: str) -> tuple[str, str]:
    """``OWNER/NAME:FORMAT`` → the hub id, and the format or an empty text."""
    repo_id, _, selected = name.partition(":")
    return repo_id, selected


def choose_files(repo_id: str, names: Iterable[str], selected: str) -> list[str]:
    """The files of a hub model to download: the text model, the encoders, and the files that belong to them.

    Args:
        repo_id: for error messages.
        names: of all files.
        selected: the format, such as ``Q4_K_M``; may be empty if there is only one.

    Returns:
        Names of files; the first is the text model, or its first part.

    Raises:
        InvalidRequest: there is no such file, or more than one.
    """
    names = sorted(names)
    models = [name for name in names if name.endswith(".gguf") and not is_mmproj(name)]
    wanted = [name for name in models if not selected or selected.lower() in _formats(name)]
    groups = {_without_number(name) for name in wanted}
    if len(groups) != 1:
        formats = _listed(sorted({found.upper() for name in models for found in _formats(name)[:1]}))
        problem = f"has no GGUF file {selected}" if selected and not wanted else "has several GGUF files"
        raise InvalidRequest(
            f"{repo_id} {problem}; add one of these formats after a colon, as in {repo_id}:Q4_K_M: {formats}",
            "MODEL_NAME",
        )
    others = [name for name in OTHER_FILES if name in names]
    return [*wanted, *_encoders(names), *others]


def _encoders(names: Sequence[str]) -> list[str]:
    """The file of the encoders, of several the one in the preferred format."""
    files = [name for name in names if name.endswith(".gguf") and is_mmproj(name)]
    return sorted(files, key=lambda name: (_preference(name), name))[:1]


def _preference(name: str) -> int:
    found = [at for at, kind in enumerate(_MMPROJ_FORMATS) if kind in _formats(name)]
    return min(found, default=len(_MMPROJ_FORMATS))


def _formats(name: str) -> list[str]:
    """What selects a file, in lower case: its format, with and without a prefix such as ``UD-``."""
    match = _FORMAT.search(served_name(Path(PurePosixPath(name).name)))
    if match is None:
        return []
    variant, kind = match[1], match[2].lower()
    return [f"{variant.lower()}-{kind}", kind] if variant else [kind]


def _without_number(name: str) -> str:
    return str(PurePosixPath(name).parent / served_name(Path(PurePosixPath(name).name)))


def _listed(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _MAX_SHOWN else ""
    return ", ".join(names[:_MAX_SHOWN]) + more if names else "none"
