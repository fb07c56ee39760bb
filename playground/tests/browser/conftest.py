"""One browser, one stack, one server that says what it is told; a profile without a past for each visit."""

import contextlib
import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import chromium
from fake_openai import FakeOpenAI
from playgrounds import Playground, playing
from profiles import Profiles
from screen import Screen, Visit
from stack import ROOT, Stack, running

HERE = Path(__file__).parent
PICTURES = ROOT / "build" / "browser"
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop; for what shares a server one worker of pytest-xdist; in CI nothing is left out."""
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    left_out = bool(ours) and not os.environ.get("CI") and chromium.installed() is None
    for item in ours:
        server = "the fake" if "scripted" in getattr(item, "fixturenames", ()) else "the stack"
        item.add_marker(pytest.mark.xdist_group(f"browser and {server}"))
        item.add_marker(pytest.mark.timeout(600))  # the first one waits for everything to start
        item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
        if left_out:  # a reason each, so that pytest names them all
            item.add_marker(pytest.mark.skip(f"{item.name} IS LEFT OUT: {chromium.MISSING}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Whether it failed, for what comes after it."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def profiles() -> AsyncIterator[Profiles]:
    """The browser's."""
    path = chromium.installed()
    assert path, chromium.MISSING
    async with chromium.launched(path) as browser:
        yield Profiles(browser)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The real stack with the tiny checkpoint, which never stops by itself; ``real`` waits for it.

    With the slower engine: the other makes 4,000 tokens before a browser has shown a few.
    """
    log = tmp_path_factory.mktemp("tiny") / "log"
    with running(log, wait=False, GEMMA_ENGINE="reference") as stack:
        yield stack


@pytest.fixture(scope="session")
def real(tiny: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """A playground that talks with the real stack."""
    with playing(tmp_path_factory.mktemp("real"), f"{tiny.url}/v1") as playground:  # both come up at once
        tiny.wait_ready()
        yield playground


@pytest.fixture(scope="session")
def fake_openai() -> Iterator[FakeOpenAI]:
    fake = FakeOpenAI()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def fake(fake_openai: FakeOpenAI) -> FakeOpenAI:
    """The server that says what it is told, as it was in the beginning."""
    fake_openai.reset()
    return fake_openai


@pytest.fixture(scope="session")
def secret() -> str:
    """The key that only the playground and its server may ever see."""
    return "sk-nobody-may-see-this"


@pytest.fixture(scope="session")
def scripted(
    fake_openai: FakeOpenAI, secret: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Playground]:
    """A playground that talks with the fake, and has a key."""
    folder = tmp_path_factory.mktemp("scripted")
    with playing(folder, fake_openai.base_url, OPENAI_API_KEY=secret) as playground:
        yield playground


@pytest_asyncio.fixture(loop_scope="session")
async def visit(profiles: Profiles, request: pytest.FixtureRequest) -> AsyncIterator[Visit]:
    """Opens a playground in a profile of its own; whatever happened, no other host was asked."""
    screens: list[Screen] = []
    asked: set[Playground] = set()
    async with contextlib.AsyncExitStack() as lent:

        async def visit(playground: Playground, query: str = "", **profile: Any) -> Screen:
            page = await lent.enter_async_context(profiles.lent(playground.url, **profile))
            screens.append(screen := Screen(page, playground.url))
            asked.add(playground)
            await screen.come(query)
            return screen

        yield visit
        if request.node.stash.get(FAILED, False):
            for number, screen in enumerate(each for each in screens if not each.page.is_closed()):
                await screen.picture(PICTURES / f"{request.node.name}-{number}.png")
            print(*(playground.tail() for playground in asked), sep="\n")
    assert [host for screen in screens for host in screen.foreign] == []
    assert [error for screen in screens for error in screen.errors] == []
