"""How many connections there may be, and how often a message about them is logged."""

import resource

from gemma_gateway.http_server.connections import Throttle
from gemma_gateway.http_server.file_descriptors import MOST, RESERVE, connection_limit, raise_limit


def test_limits_of_connections() -> None:
    assert connection_limit(0, 256) == 256 - RESERVE
    assert connection_limit(0, 4096) == 3072
    assert connection_limit(0, 2**20) == MOST
    assert connection_limit(50, 256) == 50
    assert connection_limit(500, 256) == 256 - RESERVE
    assert connection_limit(0, 64) == connection_limit(7, 64) == 1


def test_the_soft_limit_is_raised() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] // 2, before[1]))
        assert raise_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(before[1], MOST)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_throttle() -> None:
    now = 0.0
    throttle = Throttle(10, lambda: now)
    assert [throttle.count() for _ in range(5)] == [1, 0, 0, 0, 0]
    now = 10.5
    assert throttle.count() == 5
    assert throttle.count() == 0
