"""Determines the checkpoint to serve: the requested one, the bundled demo, or a tiny random one."""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gemma_launcher.checkpoints import gguf, hub
from gemma_launcher.checkpoints.hub import Log
from gemma_launcher.checkpoints.validation import validate_checkpoint
from gemma_launcher.errors import CommandError
from gemma_launcher.paths import cache_folder, project_root
from gemma_launcher.settings import LauncherSettings
from gemma_wire.gguf_sources import is_gguf, served_name, split_hub_id

BUNDLED_CHECKPOINT = Path("models") / "gemma3n-nano"
TINY_CHECKPOINT = "gemma3n-tiny"
REAL_MODEL_COMMAND = "HF_TOKEN=your_token MODEL_NAME=google/gemma-3n-E4B-it make serve"
DEMO_NOTE = f"""\
This is the bundled demo: a very small model that shows that everything works.
For the real one (accept its licence on the hub first):  {REAL_MODEL_COMMAND}"""
RANDOM_WEIGHTS_NOTE = f"""\
THE WEIGHTS ARE RANDOM: this tiny checkpoint generates gibberish; it shows that everything works.
For the real model (accept its licence on the hub first):  {REAL_MODEL_COMMAND}"""
NO_DEMO_NOTE = f"""\
The demo model is part of a checkout of the repository ({BUNDLED_CHECKPOINT}), and this is none."""
_GENERATOR_MODULE = "gemma_model.testing.tiny_checkpoint"


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """A complete checkpoint on disk.

    Args:
        name: what clients call the model: the hub id, or the name of the folder or file.
        folder: where it is.
        note: what users should know about it; may be empty.
    """

    name: str
    folder: Path
    note: str = ""


def resolve_checkpoint(
    settings: LauncherSettings, environment: Mapping[str, str], log: Log
) -> ResolvedCheckpoint:
    """The checkpoint to serve, validated; downloaded or generated if necessary.

    Args:
        settings: the requested model.
        environment: for the process that generates the tiny checkpoint.
        log: receives messages about steps that take long.

    Raises:
        CommandError: it cannot be served.
    """
    path = local_checkpoint(settings)
    if path is not None:
        given = settings.model_name if settings.gemma_checkpoint else ""
        folder = checkpoint_folder(path, environment)
        note = DEMO_NOTE if folder.name == BUNDLED_CHECKPOINT.name else gguf.encoder_note(folder)
        return ResolvedCheckpoint(given or _own_name(path), folder, note)
    name = settings.model_name
    if name and name != TINY_CHECKPOINT:
        fetched = hub.fetch_checkpoint(name, settings.token, log)
        folder = checkpoint_folder(fetched, environment)
        return ResolvedCheckpoint(split_hub_id(name)[0], folder, gguf.encoder_note(folder))
    folder = cache_folder() / TINY_CHECKPOINT
    _ensure_tiny_checkpoint(folder, environment, log)
    return ResolvedCheckpoint(TINY_CHECKPOINT, folder, _random_weights_note(name))


def _random_weights_note(name: str) -> str:
    if name or project_root():
        return RANDOM_WEIGHTS_NOTE
    return f"{NO_DEMO_NOTE}\n{RANDOM_WEIGHTS_NOTE}".replace("make serve", "gemma-triton serve")


def checkpoint_folder(path: Path, environment: Mapping[str, str]) -> Path:
    """The folder of a checkpoint, validated; of a GGUF file the folder that represents it.

    Raises:
        CommandError: it cannot be served.
    """
    if not is_gguf(path) and environment.get("GEMMA_ENCODERS") and not gguf.referenced_files(path):
        raise CommandError(
            "GEMMA_ENCODERS is only for GGUF files; other checkpoints have encoders of their own"
        )
    folder = gguf.prepare(path, environment) if is_gguf(path) else path
    validate_checkpoint(folder)
    return folder.resolve()


def _own_name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else served_name(path)


def local_checkpoint(settings: LauncherSettings) -> Path | None:
    """The folder or file that the settings select; ``None`` for a hub model and the tiny checkpoint."""
    if settings.gemma_checkpoint:
        return settings.gemma_checkpoint.expanduser()
    if settings.model_name:
        return local_folder(settings.model_name)
    repository = settings.gemma_model_repository
    parents = [*(repository.resolve().parents if repository else ()), project_root()]
    bundled = (parent / BUNDLED_CHECKPOINT for parent in parents if parent)
    return next((folder for folder in bundled if folder.is_dir()), None)


def local_folder(model_name: str) -> Path | None:
    """The folder or file that a MODEL_NAME selects; ``None`` when it can only be a hub id.

    An existing folder takes precedence over a hub id of the same spelling.
    """
    folder = Path(model_name).expanduser()
    looks_like_path = model_name.startswith(("/", ".", "~")) or model_name.count("/") > 1
    return folder if folder.is_dir() or looks_like_path or folder.suffix == ".gguf" else None


def _ensure_tiny_checkpoint(folder: Path, environment: Mapping[str, str], log: Log) -> None:
    """Generates the tiny checkpoint if it is missing, damaged, or older than its generator."""
    if _is_up_to_date(folder):
        return
    log(f"generating the tiny checkpoint in {folder}: this takes some seconds, only once")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=folder.parent, prefix="generating-")
    except OSError as error:
        raise _generation_error(f"{folder.parent}: {error.strerror}") from None
    with temporary as name:
        _generate(Path(name) / folder.name, environment)
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another launcher was faster
            (Path(name) / folder.name).replace(folder)  # atomic: no incomplete checkpoint is ever visible
    validate_checkpoint(folder)


def _is_up_to_date(folder: Path) -> bool:
    try:
        validate_checkpoint(folder)
        spec = find_spec(_GENERATOR_MODULE)
        generator = Path(spec.origin) if spec and spec.origin else folder
        return (folder / "config.json").stat().st_mtime >= generator.stat().st_mtime
    except (CommandError, OSError, ImportError):
        return False


def _generate(folder: Path, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", _GENERATOR_MODULE, str(folder)]
    code = subprocess.run(command, env=environment, check=False).returncode
    if code < 0:
        signal_name = signal.Signals(-code).name
        raise _generation_error(f"killed by {signal_name}; `gemma-triton doctor` may find the cause")
    if code > 0:
        raise _generation_error(f"exit code {code}, see the output above")


def _generation_error(reason: str) -> CommandError:
    return CommandError(
        f"the tiny checkpoint could not be generated ({reason}); "
        "set MODEL_NAME to a folder that contains a checkpoint"
    )
