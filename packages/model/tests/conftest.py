from pathlib import Path

import pytest

from gemma_model.tiny import make


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint, made once."""
    folder = tmp_path_factory.mktemp("checkpoints") / "gemma3n-tiny"
    make(folder)
    return folder
