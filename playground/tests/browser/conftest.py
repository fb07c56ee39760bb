"""One browser, one stack, one fake server; each visit gets an empty profile."""

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
SCREENSHOTS = ROOT / "build" / "browser"
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop; one worker of pytest-xdist for tests that share a server; in CI no test is skipped."""
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    skipped = bool(ours) and not os.environ.get("CI") and chromium.installed() is None
    for item in ours:
        server = "the fake" if "scripted" in getattr(item, "fixturenames", ()) else "the stack"
        item.add_marker(pytest.mark.xdist_group(f"browser and {server}"))
        item.add_marker(pytest.mark.timeout(600))  # the first test waits for everything to start
        item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
        if skipped:  # different reasons, so that pytest lists each test
            item.add_marker(pytest.mark.skip(f"{item.name} is skipped: {chromium.MISSING}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record whether the test failed, for fixtures."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def profiles() -> AsyncIterator[Profiles]:
    """The profiles of the browser."""
    path = chromium.installed()
    assert path, chromium.MISSING
    async with chromium.launched(path) as browser:
        yield Profiles(browser)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The real stack with the tiny checkpoint; ``real`` waits until it is ready.

    It uses the slower engine: the other one generates 4,000 tokens before a browser has shown a few.
    """
    log = tmp_path_factory.mktemp("tiny") / "log"
    with running(log, wait=False, GEMMA_ENGINE="reference") as stack:
        yield stack


@pytest.fixture(scope="session")
def real(tiny: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """A playground for the real stack."""
    with playing(tmp_path_factory.mktemp("real"), f"{tiny.url}/v1") as playground:  # starts meanwhile
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
    """The fake server, in its initial state."""
    fake_openai.reset()
    return fake_openai


@pytest.fixture(scope="session")
def secret() -> str:
    """The API key, which only the playground and its server may see."""
    return "sk-nobody-may-see-this"


@pytest.fixture(scope="session")
def scripted(
    fake_openai: FakeOpenAI, secret: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Playground]:
    """A playground with an API key, for the fake server."""
    folder = tmp_path_factory.mktemp("scripted")
    with playing(folder, fake_openai.base_url, OPENAI_API_KEY=secret) as playground:
        yield playground


@pytest_asyncio.fixture(loop_scope="session")
async def visit(profiles: Profiles, request: pytest.FixtureRequest) -> AsyncIterator[Visit]:
    """Opens a playground in its own profile; at the end, checks that no other host was contacted."""
    screens: list[Screen] = []
    visited: set[Playground] = set()
    async with contextlib.AsyncExitStack() as stack:

        async def visit(playground: Playground, query: str = "", **profile: Any) -> Screen:
            page = await stack.enter_async_context(profiles.borrow(playground.url, **profile))
            screens.append(screen := Screen(page, playground.url))
            visited.add(playground)
            await screen.open(query)
            return screen

        yield visit
        if request.node.stash.get(FAILED, False):
            for number, screen in enumerate(each for each in screens if not each.page.is_closed()):
                await screen.screenshot(SCREENSHOTS / f"{request.node.name}-{number}.png")
            print(*(playground.tail() for playground in visited), sep="\n")
    assert [host for screen in screens for host in screen.foreign] == []
    assert [error for screen in screens for error in screen.errors] == []
