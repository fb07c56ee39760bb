"""What all tests share: how they are divided among processes, and signals as in a terminal."""

import signal

import pytest


def pytest_configure() -> None:
    """A shell starts background jobs with SIGINT ignored; the tests' children would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file stays together, so that what its tests share is made once, unless it is in a larger group."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
