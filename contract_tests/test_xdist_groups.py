"""Groups of pytest-xdist: if they do not work with the installed pytest, every stack is started twice."""

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_a_group_runs_on_one_worker(request: pytest.FixtureRequest) -> None:
    assert request.node.nodeid.endswith("@" + str(request.path))
