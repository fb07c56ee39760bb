"""Checkpoints from the Hugging Face hub. ``huggingface_hub`` is imported only when it is needed."""

import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gemma_launcher.byte_units import format_bytes
from gemma_launcher.checkpoints.validation import read_config, validate_checkpoint
from gemma_launcher.errors import CommandError
from gemma_wire import InvalidRequest
from gemma_wire.gguf import read_gguf
from gemma_wire.gguf_sources import choose_files, is_gguf, split_hub_id

PATTERNS: Final = ["*.json", "*.safetensors", "*.jinja", "*.model"]
"""The files of a checkpoint that are downloaded; other formats of the same weights are not."""

LOOKUP_TIMEOUT_S = 10.0
PROGRESS_INTERVAL_S = 15.0

Log = Callable[[str], None]


def fetch_checkpoint(name: str, token: str | None, log: Log) -> Path:
    """The local folder or GGUF file of a hub model, downloaded if it is not in the cache.

    A complete copy in the cache is used without a request to the hub, so that the weights stay the same and
    no network is needed.

    Args:
        name: the hub id, with a colon and a format if one of several GGUF files is wanted.
        token: of the hub.
        log: receives the progress.

    Raises:
        CommandError: malformed id, unknown or gated model, no network, unsupported model, disk full.
    """
    repo_id, selected = split_hub_id(name)
    check_repo_id(repo_id)
    return cached_checkpoint(name) or _download(repo_id, selected, token, log)


def check_repo_id(repo_id: str) -> None:
    """Checks that this can be a hub id.

    Raises:
        CommandError: it cannot.
    """
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    from huggingface_hub.utils._validators import validate_repo_id  # noqa: PLC0415

    try:
        validate_repo_id(repo_id)
        valid = repo_id.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise CommandError(
            f"MODEL_NAME={repo_id} is neither a folder nor a hub id "
            "(OWNER/NAME, as in google/gemma-3n-E4B-it), nor a .gguf file"
        )


def cached_checkpoint(name: str) -> Path | None:
    """The folder or GGUF file in the local cache, if it is complete."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    repo_id, selected = split_hub_id(name)
    try:
        folder = Path(snapshot_download(repo_id, allow_patterns=PATTERNS, local_files_only=True))
        if selected or is_gguf(folder):
            return _cached_gguf(repo_id, folder, selected)
        validate_checkpoint(folder)
    except (LocalEntryNotFoundError, CommandError):
        return None
    return folder


def _cached_gguf(repo_id: str, folder: Path, selected: str) -> Path | None:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf")]
    try:
        file = folder / choose_files(repo_id, names, selected)[0]
        read_gguf(file)
    except InvalidRequest:
        return None
    return file


def fetch_config(repo_id: str, token: str | None) -> Path:
    """``config.json`` of a hub model, from the local cache or from the hub.

    Raises:
        CommandError: as in ``fetch_checkpoint``.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache  # noqa: PLC0415

    check_repo_id(repo_id)
    cached = try_to_load_from_cache(repo_id, "config.json")
    if isinstance(cached, str):
        return Path(cached)
    with _translated_errors(repo_id):
        return Path(hf_hub_download(repo_id, "config.json", token=token))


def check_access(repo_id: str, token: str | None) -> None:
    """Checks, within seconds, that the hub has the model and that this token may download it.

    Raises:
        CommandError: it does not, it may not, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415

    hub = HfApi(token=token)
    with _translated_errors(repo_id):
        hub.model_info(repo_id, timeout=LOOKUP_TIMEOUT_S)
        hub.auth_check(repo_id)


def _download(repo_id: str, selected: str, token: str | None, log: Log) -> Path:
    """Checks access, model type and disk space, then downloads."""
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415

    check_access(repo_id, token)
    with _translated_errors(repo_id):
        names = HfApi(token=token).list_repo_files(repo_id)
        chosen = _choose_gguf(repo_id, names, selected)
        if not chosen:
            _check_config(repo_id, token)
        patterns = chosen or PATTERNS
        files = snapshot_download(repo_id, allow_patterns=patterns, token=token, dry_run=True)
        size = sum(file.file_size or 0 for file in files if file.will_download)
        _check_disk_space(repo_id, size)
        log(f"downloading {repo_id}: {format_bytes(size)} to {_blobs(repo_id).parent}")
        with _logged_progress(_blobs(repo_id), size, log):
            folder = Path(snapshot_download(repo_id, allow_patterns=patterns, token=token))
    if chosen:
        return folder / chosen[0]
    validate_checkpoint(folder)
    return folder


def _choose_gguf(repo_id: str, names: Sequence[str], selected: str) -> list[str]:
    """The files of the GGUF model; empty if the model has safetensors, and no format was named."""
    has_gguf = any(name.endswith(".gguf") for name in names)
    if not selected and (not has_gguf or any(name.endswith(".safetensors") for name in names)):
        return []
    try:
        return choose_files(repo_id, names, selected)
    except InvalidRequest as error:
        raise CommandError(error.message) from None


def _check_config(repo_id: str, token: str | None) -> None:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415

    config = Path(hf_hub_download(repo_id, "config.json", token=token))
    try:
        read_config(config)
    except CommandError as error:
        raise CommandError(f"{repo_id} cannot be served: {error}") from None


def _check_disk_space(repo_id: str, size: int) -> None:
    existing = next(parent for parent in _blobs(repo_id).parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise CommandError(
            f"{repo_id} needs {format_bytes(size)}, but {existing} has {format_bytes(free)} free; "
            "free some space, or set HF_HOME to a folder on a larger disk"
        )


def _blobs(repo_id: str) -> Path:
    """Where the cache stores the files of a model."""
    from huggingface_hub import constants  # noqa: PLC0415

    return Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}" / "blobs"


@contextmanager
def _logged_progress(folder: Path, size: int, log: Log) -> Iterator[None]:
    """Logs the progress regularly. On a terminal, the hub's progress bars are shown instead."""
    done = threading.Event()
    before = _folder_size(folder)

    def report() -> None:
        while not done.wait(PROGRESS_INTERVAL_S):
            log(f"downloaded {format_bytes(_folder_size(folder) - before)} of {format_bytes(size)}")

    if not sys.stderr.isatty():
        threading.Thread(target=report, name="download", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _folder_size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except OSError:  # a file was renamed meanwhile, or the folder does not exist yet
        return 0


@contextmanager
def _translated_errors(repo_id: str) -> Iterator[None]:
    """Raises every error of ``huggingface_hub`` as a ``CommandError``."""
    from huggingface_hub import errors  # noqa: PLC0415

    try:
        yield
    except CommandError:
        raise
    except errors.GatedRepoError:
        raise CommandError(
            f"{repo_id} is gated: accept its licence at https://huggingface.co/{repo_id}, "
            "then set HF_TOKEN to a token of that account"
        ) from None
    except errors.RepositoryNotFoundError:
        raise CommandError(
            f"MODEL_NAME={repo_id}: the hub has no such model, or it is private and HF_TOKEN has no access"
        ) from None
    except Exception as error:  # among others, network errors of several libraries
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise CommandError(
            f"{repo_id} is not in the local cache, and the hub cannot be reached ({reason}); "
            "connect to the network, or set MODEL_NAME to a folder that contains a checkpoint"
        ) from None
