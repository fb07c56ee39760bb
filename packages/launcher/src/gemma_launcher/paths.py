"""The locations of the checkout, the model repository and the playground."""

import os
from importlib.util import find_spec
from pathlib import Path

from gemma_launcher.errors import CommandError
from gemma_launcher.settings import LauncherSettings
from gemma_wire.tensors import MODEL

MODEL_PACKAGE = "gemma_model"
PLAYGROUND_PACKAGE = "gemma_playground"
"""Both may be missing from an installation; nothing is imported from them here."""

PLAYGROUND_NOT_INSTALLED = "the playground is not installed (`poetry install` installs it)"

_CHECKOUT = Path("packages") / "launcher" / "pyproject.toml"


def project_root() -> Path | None:
    """The checkout that contains this file or the current folder; ``None`` in an installation from wheels."""
    here, current = Path(__file__).resolve(), Path.cwd()
    candidates = (*here.parents, current, *current.parents)
    return next((folder for folder in candidates if (folder / _CHECKOUT).is_file()), None)


def cache_folder() -> Path:
    """Where generated files are kept: in the checkout, otherwise in the user's cache."""
    if root := project_root():
        return root / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gemma-triton"


def find_model_repository(settings: LauncherSettings) -> Path:
    """The folder that Triton loads models from: the configured one, otherwise that of the model's package.

    Raises:
        CommandError: it was not found.
    """
    folder = settings.gemma_model_repository or _packaged_repository()
    if folder is None:
        raise CommandError(
            "the package gemma-model, which contains the model repository, is not installed; install it, or "
            "use a Triton on another machine with --triton-url HOST:PORT (TRITON_GRPC_URL)"
        )
    if not (folder / MODEL / "config.pbtxt").is_file():
        raise CommandError(
            f"{folder} is not a model repository (it has no {MODEL}/config.pbtxt); "
            "set GEMMA_MODEL_REPOSITORY to one, or leave it empty"
        )
    return folder.resolve()


def _packaged_repository() -> Path | None:
    spec = find_spec(MODEL_PACKAGE)  # does not import it
    return Path(spec.origin).parent / "model_repository" if spec and spec.origin else None


def is_playground_installed() -> bool:
    """Whether the playground's package can be imported."""
    return find_spec(PLAYGROUND_PACKAGE) is not None
