from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import attacks
from fake_openai import FakeOpenAI
from served import SECRET, PlaygroundServer


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    """A server with scripted responses."""
    fake = FakeOpenAI()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaygroundServer]:
    """One for all: to build it takes seconds."""
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setenv("OF_THE_SERVER", SECRET)
        with PlaygroundServer(folder).running() as served:
            yield served


@pytest.fixture
def visitor(served: PlaygroundServer) -> Iterator[httpx.Client]:
    with served.visitor() as visitor:
        yield visitor


@pytest.fixture
def secrets(tmp_path: Path) -> list[str]:
    (tmp_path / "secret.png").write_text(SECRET, encoding="utf-8")
    return attacks.places(tmp_path)
