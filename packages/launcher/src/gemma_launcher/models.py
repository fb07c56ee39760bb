"""Which checkpoint is served: the one that was asked for, the bundled demo, or a tiny random one."""

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

from gemma_launcher import checkpoint, hub
from gemma_launcher.errors import CannotStart
from gemma_launcher.hub import Say
from gemma_launcher.places import root
from gemma_launcher.settings import Settings

BUNDLED = Path("models") / "gemma3n-nano"
TINY = Path(".cache") / "gemma3n-tiny"
REAL = "HF_TOKEN=your_token MODEL_NAME=google/gemma-3n-E4B-it make serve"
DEMO = f"""\
This is the bundled demo: a very small model, here to show that everything works.
For the real one (accept its licence on the hub first):  {REAL}"""
GIBBERISH = f"""\
THE WEIGHTS ARE RANDOM: this tiny checkpoint speaks gibberish; it is here to show that everything works.
For the real model (accept its licence on the hub first):  {REAL}"""
_MAKER = "gemma_model.tiny"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk.

    Args:
        name: what clients call the model: the hub id, or the folder's last part.
        note: what people must know about it, and what to do; empty: nothing.
    """

    name: str
    folder: Path
    note: str = ""


def resolve(settings: Settings, environment: Mapping[str, str], say: Say) -> Checkpoint:
    """The checkpoint to serve, whole and on disk; downloads or makes it if need be.

    Args:
        settings: what was asked for.
        environment: for the process that makes the tiny checkpoint.
        say: told what takes long.

    Raises:
        CannotStart: it cannot be served, in one sentence.
    """
    folder = on_this_machine(settings)
    if folder is not None:
        checkpoint.check(folder)
        given, folder = settings.model_name if settings.gemma_checkpoint else "", folder.resolve()
        return Checkpoint(given or folder.name, folder, DEMO if folder.name == BUNDLED.name else "")
    if settings.model_name and settings.model_name != TINY.name:
        return Checkpoint(settings.model_name, hub.fetch(settings.model_name, settings.token, say))
    return Checkpoint(TINY.name, _tiny(root() / TINY, environment, say), GIBBERISH)


def on_this_machine(settings: Settings) -> Path | None:
    """The folder that the settings mean; none for a model of the hub, and for the tiny checkpoint."""
    if settings.gemma_checkpoint:
        return settings.gemma_checkpoint.expanduser()
    if settings.model_name:
        return local_folder(settings.model_name)
    beside = settings.gemma_model_repository
    homes = [beside.resolve().parent, root()] if beside else [root()]
    return next((home / BUNDLED for home in homes if (home / BUNDLED).is_dir()), None)


def local_folder(model_name: str) -> Path | None:
    """The folder that a MODEL_NAME means; none when it can only be a hub id.

    A folder that exists wins over a hub id of the same spelling.
    """
    folder = Path(model_name).expanduser()
    looks_like_path = model_name.startswith(("/", ".", "~")) or model_name.count("/") > 1
    return folder if folder.is_dir() or looks_like_path else None


def _tiny(folder: Path, environment: Mapping[str, str], say: Say) -> Path:
    """The tiny checkpoint, made again when it is damaged or older than the script that makes it."""
    if not _is_fresh(folder):
        say(f"making the tiny checkpoint in {folder}: this takes some seconds, once")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            workshop = tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-")
        except OSError as error:
            raise CannotStart(_not_made(f"{folder.parent}: {error.strerror}")) from None
        with workshop as name:
            _make(Path(name) / folder.name, environment)
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # another launcher was quicker
                (Path(name) / folder.name).replace(folder)  # never half a checkpoint
    checkpoint.check(folder)
    return folder


def _is_fresh(folder: Path) -> bool:
    try:
        checkpoint.check(folder)
        spec = find_spec(_MAKER)
        made_by = Path(spec.origin) if spec and spec.origin else folder
        return (folder / "config.json").stat().st_mtime >= made_by.stat().st_mtime
    except (CannotStart, OSError, ImportError):
        return False


def _make(folder: Path, environment: Mapping[str, str]) -> None:
    run = subprocess.run([sys.executable, "-m", _MAKER, str(folder)], env=environment, check=False)
    if run.returncode != 0:
        how = f"exit code {run.returncode}, its reason stands above"
        if run.returncode < 0:
            how = f"killed by {signal.Signals(-run.returncode).name}; `gemma-triton doctor` may know why"
        raise CannotStart(_not_made(how))


def _not_made(reason: str) -> str:
    other = "set MODEL_NAME to a folder that holds a checkpoint"
    return f"the tiny checkpoint could not be made ({reason}); {other}"
