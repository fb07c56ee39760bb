"""Checkpoints from the Hugging Face hub. huggingface_hub is imported late: most runs need none of it."""

import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from gemma_launcher import checkpoint
from gemma_launcher.errors import CannotStart

PATTERNS: Final = ("*.json", "*.safetensors", "*.jinja", "*.model")
"""What a checkpoint consists of here; other formats of the same weights stay on the hub."""

LOOK_UP_S = 10.0
REPORT_EVERY_S = 15.0

Say = Callable[[str], None]


def fetch(repo_id: str, token: str | None, say: Say) -> Path:
    """The local folder of a hub model, downloaded if it is not in the cache.

    A complete copy in the cache is used as it is, without asking the hub: the same weights every
    time, network or not.

    Raises:
        CannotStart: malformed id, unknown or gated model, no network, a model we do not serve, no room.
    """
    check_id(repo_id)
    return cached(repo_id) or _download(repo_id, token, say)


def check_id(repo_id: str) -> None:
    """Passes when this may be a hub id.

    Raises:
        CannotStart: it is none, and no folder either.
    """
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    from huggingface_hub.utils._validators import validate_repo_id  # noqa: PLC0415

    try:
        validate_repo_id(repo_id)
        valid = repo_id.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise CannotStart(
            f"MODEL_NAME={repo_id} is neither a folder nor a hub id "
            "(OWNER/NAME, as in google/gemma-3n-E4B-it)"
        )


def cached(repo_id: str) -> Path | None:
    """The folder in the local cache, if it is there and whole."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    try:
        folder = Path(snapshot_download(repo_id, allow_patterns=[*PATTERNS], local_files_only=True))
        checkpoint.check(folder)
    except (LocalEntryNotFoundError, CannotStart):
        return None
    return folder


def config(repo_id: str, token: str | None) -> Path:
    """``config.json`` of a hub model alone: from the cache, else a few kilobytes from the hub.

    Raises:
        CannotStart: as in ``fetch``.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache  # noqa: PLC0415

    check_id(repo_id)
    known = try_to_load_from_cache(repo_id, "config.json")
    if isinstance(known, str):
        return Path(known)
    with _explained(repo_id):
        return Path(hf_hub_download(repo_id, "config.json", token=token))


def look_up(repo_id: str, token: str | None) -> Any:
    """Asks the hub for the model, and whether its files may be had; answers or raises within seconds.

    Returns:
        ``huggingface_hub.ModelInfo`` with the sizes of the files.

    Raises:
        CannotStart: they may not, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415

    hub = HfApi(token=token)
    with _explained(repo_id):
        info = hub.model_info(repo_id, files_metadata=True, timeout=LOOK_UP_S)
        hub.auth_check(repo_id)
    return info


def _download(repo_id: str, token: str | None, say: Say) -> Path:
    """Looks, checks, then downloads: a wrong model is refused before its weights are fetched."""
    from huggingface_hub import hf_hub_download, snapshot_download  # noqa: PLC0415

    info = look_up(repo_id, token)
    with _explained(repo_id):
        config = Path(hf_hub_download(repo_id, "config.json", token=token))
        try:
            checkpoint.check_config(config)
        except CannotStart as error:
            raise CannotStart(f"{repo_id} cannot be served: {error}") from None
        size = sum(
            file.size or 0 for file in info.siblings or () if _is_missing(repo_id, info.sha, file.rfilename)
        )
        _check_room(repo_id, size)
        say(f"downloading {repo_id}: {in_bytes(size)} to {_blobs(repo_id).parent}")
        with _reported(_blobs(repo_id), size, say):
            folder = Path(snapshot_download(repo_id, allow_patterns=[*PATTERNS], token=token))
    checkpoint.check(folder)
    return folder


def _is_missing(repo_id: str, revision: str, name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    wanted = any(fnmatch(name, pattern) for pattern in PATTERNS)
    return wanted and not isinstance(try_to_load_from_cache(repo_id, name, revision=revision), str)


def _check_room(repo_id: str, size: int) -> None:
    folder = _blobs(repo_id)
    existing = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise CannotStart(
            f"{repo_id} needs {in_bytes(size)} and {existing} has {in_bytes(free)} free; "
            "make room, or set HF_HOME to a folder on a larger disk"
        )


def _blobs(repo_id: str) -> Path:
    """Where the cache keeps the files of a model."""
    from huggingface_hub import constants  # noqa: PLC0415

    return Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}" / "blobs"


@contextmanager
def _reported(folder: Path, size: int, say: Say) -> Iterator[None]:
    """On a terminal the hub's own bars show the progress; in a log file, a line from time to time does."""
    done = threading.Event()
    before = _weight(folder)

    def report() -> None:
        while not done.wait(REPORT_EVERY_S):
            say(f"downloaded {in_bytes(_weight(folder) - before)} of {in_bytes(size)}")

    if not sys.stderr.isatty():
        threading.Thread(target=report, name="download", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _weight(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except OSError:  # a file was renamed while we looked, or nothing is there yet
        return 0


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Every error of the hub's client as one sentence."""
    from huggingface_hub import errors  # noqa: PLC0415

    try:
        yield
    except CannotStart:
        raise
    except errors.GatedRepoError:
        raise CannotStart(
            f"{repo_id} is gated: accept its licence at https://huggingface.co/{repo_id}, "
            "then set HF_TOKEN to a token of the account that did"
        ) from None
    except errors.RepositoryNotFoundError:
        raise CannotStart(
            f"MODEL_NAME={repo_id}: the hub has no such model, or it is private and HF_TOKEN may not read it"
        ) from None
    except Exception as error:  # whatever else the hub's client raises, network errors of three libraries
        raise CannotStart(_unreachable(repo_id, error)) from None


def _unreachable(repo_id: str, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return (
        f"{repo_id} is not in the local cache, and the hub cannot be reached ({reason}); "
        "connect, or set MODEL_NAME to a folder that holds a checkpoint"
    )


def in_bytes(count: float) -> str:
    """``15.7 GB``."""
    for unit in ("bytes", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
