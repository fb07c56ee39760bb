"""Where things lie: the checkout, the model repository, the playground."""

from importlib.util import find_spec
from pathlib import Path

from gemma_launcher.errors import CannotStart
from gemma_launcher.settings import Settings
from gemma_wire.tensors import MODEL

PLAYGROUND = "gemma_playground"
"""Its package. An installation may lack it; nothing of it is imported here."""

NO_PLAYGROUND = "the playground is not installed (`poetry install` brings it)"

_CONFIG = Path("model_repository") / MODEL / "config.pbtxt"


def root() -> Path:
    """The checkout this file belongs to, or the one around the current folder, or the current folder."""
    here, current = Path(__file__).resolve(), Path.cwd()
    candidates = (*here.parents, current, *current.parents)
    return next((folder for folder in candidates if (folder / _CONFIG).is_file()), current)


def model_repository(settings: Settings) -> Path:
    """The folder that Triton loads models from.

    Raises:
        CannotStart: there is none.
    """
    folder = settings.gemma_model_repository or root() / "model_repository"
    if not (folder / MODEL / "config.pbtxt").is_file():
        raise CannotStart(
            f"{folder} is no model repository (it has no {MODEL}/config.pbtxt); "
            "run this inside the checkout, or set GEMMA_MODEL_REPOSITORY"
        )
    return folder.resolve()


def has_playground() -> bool:
    """Whether the playground is installed."""
    return find_spec(PLAYGROUND) is not None
