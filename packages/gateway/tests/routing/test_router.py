"""The router's decisions."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from gemma_gateway.routing.circuit_breaker import FAILURES, FIRST_SECONDS, LONGEST_SECONDS, CircuitBreaker
from gemma_gateway.routing.router import ALWAYS_ROOM, LOAD_BOUND, STAY_BOUND, ServerLoad, rank_servers

KEYS = [hashlib.blake2b(str(number).encode(), digest_size=16).digest() for number in range(300)]


def idle(count: int) -> list[ServerLoad]:
    return [ServerLoad(f"server-{number}") for number in range(count)]


@st.composite
def loads(draw: st.DrawFn) -> list[ServerLoad]:
    numbers = draw(st.lists(st.integers(0, 99), min_size=1, max_size=12, unique=True))
    return [
        ServerLoad(str(number), draw(st.integers(0, 5000)), draw(st.integers(0, 40)), draw(st.booleans()))
        for number in numbers
    ]


keys = st.none() | st.binary(min_size=16, max_size=16)


@given(loads(), keys, st.integers(0, 3000), st.data())
def test_every_server_is_in_the_order_once_and_the_available_ones_come_first(
    servers: list[ServerLoad], key: bytes | None, tokens: int, data: st.DataObject
) -> None:
    last = data.draw(st.none() | st.sampled_from([server.name for server in servers]))
    order = rank_servers(servers, key, last, tokens)
    assert sorted(order) == sorted(server.name for server in servers)
    available = {server.name for server in servers if server.available}
    assert set(order[: len(available)]) == available


@given(loads(), st.binary(min_size=16, max_size=16), st.integers(0, 3000), st.data())
def test_no_server_gets_more_than_its_share_while_another_has_room(
    servers: list[ServerLoad], key: bytes, tokens: int, data: st.DataObject
) -> None:
    last = data.draw(st.none() | st.sampled_from([server.name for server in servers]))
    first = next(s for s in servers if s.name == rank_servers(servers, key, last, tokens)[0])
    available = [server for server in servers if server.available]
    if len(servers) < 2 or not available:
        return
    mean = (sum(server.tokens for server in available) + tokens) / len(available)
    bound = (STAY_BOUND if first.name == last else LOAD_BOUND) * mean
    within = first.requests < ALWAYS_ROOM or first.tokens + tokens <= bound
    least = min(server.tokens for server in available)
    assert within or first.tokens == least  # the least loaded one, if all are above the bound


@given(loads(), keys, st.integers(0, 3000))
def test_the_order_of_the_servers_does_not_matter(
    servers: list[ServerLoad], key: bytes | None, tokens: int
) -> None:
    with_load = [ServerLoad(s.name, 5000 * int(s.name), s.requests, s.available) for s in servers]
    assert rank_servers(with_load, key, None, tokens) == rank_servers(with_load[::-1], key, None, tokens)


def test_a_conversation_stays_where_its_last_turn_ran() -> None:
    assert {rank_servers(idle(5), key, "server-3")[0] for key in KEYS} == {"server-3"}


def test_a_conversation_leaves_a_server_that_is_gone_or_overloaded() -> None:
    others = idle(3)
    assert rank_servers(others, KEYS[0], "server-9")[0] in {"server-0", "server-1", "server-2"}
    overloaded = [ServerLoad("server-0", 10_000, ALWAYS_ROOM), *others[1:]]
    assert rank_servers(overloaded, KEYS[0], "server-0")[0] != "server-0"


def test_a_few_requests_never_move_a_conversation() -> None:
    busy = [ServerLoad("server-0", 10_000, ALWAYS_ROOM - 1), *idle(3)[1:]]
    assert rank_servers(busy, KEYS[0], "server-0")[0] == "server-0"


def test_conversations_are_spread() -> None:
    firsts = [rank_servers(idle(4), key)[0] for key in KEYS]
    assert all(50 <= firsts.count(server.name) <= 100 for server in idle(4))


def test_only_the_conversations_of_a_server_move_when_it_leaves() -> None:
    before = {key: rank_servers(idle(6), key)[0] for key in KEYS}
    after = {key: rank_servers(idle(5), key)[0] for key in KEYS}
    assert {key for key in KEYS if before[key] != after[key]} == {
        key for key in KEYS if before[key] == "server-5"
    }


def test_a_breaker_opens_after_failures_in_a_row_and_closes_with_a_response() -> None:
    breaker = CircuitBreaker()
    for _ in range(FAILURES - 1):
        breaker.failed()
    assert not breaker.is_open
    breaker.succeeded()
    for _ in range(FAILURES):
        breaker.failed()
    assert [breaker.is_open, breaker.probe_seconds] == [True, FIRST_SECONDS]
    for _ in range(100):
        breaker.failed()
    assert breaker.probe_seconds == LONGEST_SECONDS
    breaker.succeeded()
    assert [breaker.is_open] == [False]
