"""The engine that the tests of the containers share, and the stack in it."""

from collections.abc import Iterator

import pytest

import engine
from engine import Engine
from engine_stack import Containers


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs an engine is long, and in one process: its ports are those of the docs."""
    for item in items:
        if "docker_engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.long)
            item.add_marker(pytest.mark.xdist_group("engine"))
            item.add_marker(pytest.mark.timeout(2 * engine.BUILD_S))  # the first one waits for the images


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[Engine]:
    """An engine with the three images."""
    if reason := engine.missing():
        pytest.skip(f"THE CONTAINERS ARE NOT RUN: {reason}")
    with engine.running() as running:
        yield running


@pytest.fixture(scope="session")
def volumes(docker_engine: Engine) -> Iterator[Containers]:
    """The project with nothing started; its volumes, with the compiled kernels, are kept until the end."""
    containers = Containers(docker_engine)
    yield containers
    containers.compose("down", "--volumes", "--timeout", "20")


@pytest.fixture
def stack(volumes: Containers) -> Containers:
    """All containers healthy; those that a test before has left are used again."""
    volumes.up()
    return volumes
