"""The locations of the checkout, the model repository and the playground."""

from importlib.util import find_spec
from pathlib import Path

from gemma_launcher.errors import CommandError
from gemma_launcher.settings import LauncherSettings
from gemma_wire.tensors import MODEL

PLAYGROUND_PACKAGE = "gemma_playground"
"""May be missing from an installation; nothing is imported from it here."""

PLAYGROUND_NOT_INSTALLED = "the playground is not installed (`poetry install` installs it)"

_CONFIG = Path("model_repository") / MODEL / "config.pbtxt"


def project_root() -> Path:
    """The checkout that contains this file or the current folder, otherwise the current folder."""
    here, current = Path(__file__).resolve(), Path.cwd()
    candidates = (*here.parents, current, *current.parents)
    return next((folder for folder in candidates if (folder / _CONFIG).is_file()), current)


def find_model_repository(settings: LauncherSettings) -> Path:
    """The folder that Triton loads models from.

    Raises:
        CommandError: it was not found.
    """
    folder = settings.gemma_model_repository or project_root() / "model_repository"
    if not (folder / MODEL / "config.pbtxt").is_file():
        raise CommandError(
            f"{folder} is not a model repository (it has no {MODEL}/config.pbtxt); "
            "run this inside the checkout, or set GEMMA_MODEL_REPOSITORY"
        )
    return folder.resolve()


def is_playground_installed() -> bool:
    """Whether the playground's package can be imported."""
    return find_spec(PLAYGROUND_PACKAGE) is not None
