from pathlib import Path

import pytest

from gemma_model.media.images import ImageDecoder

from ..media_files import MAX_PIXELS


@pytest.fixture(scope="module")
def decoder(tiny: Path) -> ImageDecoder:
    return ImageDecoder(tiny, MAX_PIXELS)
