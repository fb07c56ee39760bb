from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import openai
import pytest
from PIL import Image

from pictures import data_uri
from stack import Stack, running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with nothing set, as a newcomer gets it; shared, so leave it as you found it."""
    with running(tmp_path_factory.mktemp("stack") / "log") as stack:
        yield stack


@pytest.fixture(autouse=True)
def _show_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """A failing test brings the stack's last lines along."""
    yield
    if "stack" in request.fixturenames:
        print(request.getfixturevalue("stack").tail())


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def red_picture() -> str:
    return data_uri(Image.new("RGB", (60, 40), "red"))


@pytest.fixture(scope="session")
def pixel() -> str:
    """The 1×1 PNG of the README."""
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    return readme.split('"url": "', 1)[1].split('"', 1)[0]
