from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image

from image_files import data_uri
from server import FOREIGN, KEY, Api, Server
from stack import ROOT, Stack, running

OURS_ALONE = "CONTRACT_BASE_URL is set, and this test looks into processes of its own"


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that use the shared stack run on one worker of pytest-xdist, so that there is one stack."""
    for item in items:
        if _shares(item):
            item.add_marker(pytest.mark.xdist_group("stack"))
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(300))  # the first one waits for everything to start


def _shares(item: Any) -> bool:
    return not {"server", "stack"}.isdisjoint(getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Server:
    """The server under test, which all tests share; do not change its state."""
    if FOREIGN:
        return Server(FOREIGN.rstrip("/").removesuffix("/v1"))
    stack: Stack = request.getfixturevalue("stack")
    return Server(stack.url)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with the tiny checkpoint and default settings, shared by all tests; leave it unchanged."""
    if FOREIGN:
        pytest.skip(OURS_ALONE)
    with running(tmp_path_factory.mktemp("stack") / "log") as stack:
        yield stack


@pytest.fixture(autouse=True)
def _show_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print the end of the stack's log if a test fails."""
    shared: Stack | None = request.getfixturevalue("stack") if _shares(request.node) and not FOREIGN else None
    yield
    if shared:
        print(shared.tail())


@pytest.fixture
def api(server: Server) -> Iterator[Api]:
    """Sends requests, and checks every response against the contract."""
    with server.http() as http:
        yield Api(http, server.model)


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def reports() -> Path:
    """The folder of reports, for developers and CI."""
    folder = ROOT / "build" / "contract"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def red_image() -> str:
    return data_uri(Image.new("RGB", (60, 40), "red"))


@pytest.fixture(scope="session")
def pixel() -> str:
    """The 1×1 PNG of the README."""
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    return readme.split('"url": "', 1)[1].split('"', 1)[0]
