"""How the tests are shared out when several processes run them (``pytest -n 2 --dist loadgroup``)."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file stays together, so that what its tests share is made once, unless it is in a larger group."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))
