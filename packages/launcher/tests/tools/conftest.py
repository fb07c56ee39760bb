"""What the tests of the planner share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint."""
    from gemma_model.testing.tiny_checkpoint import make  # noqa: PLC0415 - imports torch

    folder = tmp_path_factory.mktemp("plan") / "tiny"
    make(folder)
    return folder
