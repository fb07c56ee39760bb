"""The side by side of servers, with two that are none: rounds in turn, ratios, files."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from benchmarks import peers, rounds
from benchmarks.rounds import Ratio, alternate
from benchmarks.still import Still
from packages.launcher.tests.fake_openai import FakeServer, serving


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "busy", lambda: 0.0)


@pytest.fixture
def servers() -> Iterator[tuple[FakeServer, FakeServer]]:
    with serving(FakeServer()) as ours, serving(FakeServer(pause_s=0.05, tokenize=False)) as theirs:
        yield ours, theirs


def test_two_servers_side_by_side(
    quiet: None, servers: tuple[FakeServer, FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    ours, theirs = servers
    flags = ["--ours", ours.url, "--peer", f"slow={theirs.url}", "--clients", "1", "2", "--rounds", "2"]
    flags += [
        "--prompt-tokens",
        "12",
        "--max-tokens",
        "3",
        "--json",
        str(tmp_path / "j"),
        "--png",
        str(tmp_path / "p.png"),
    ]
    monkeypatch.setattr(sys, "argv", ["peers", *flags, "--body", 'slow={"top_k": 3}'])
    peers.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 1 |")]
    assert [row.split(" | ")[1] for row in rows] == ["ours", "slow"]
    written = json.loads((tmp_path / "j").read_text())
    for clients in ("1", "2"):
        level = written["clients"][clients]["servers"]
        assert all(
            a["output_tokens_per_s"] > b["output_tokens_per_s"]
            for a, b in zip(level["ours"], level["slow"], strict=True)
        )
        assert len(level["ours"]) == 2
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")

    def sent(server: FakeServer) -> list[str]:
        return sorted(body["messages"][0]["content"] for body in server.asked)

    assert sent(ours) == sent(theirs), "both get the same prompts"
    assert [body.get("top_k") for body in (ours.asked[0], theirs.asked[0])] == [None, 3]


def test_a_failed_request_ends_it(
    quiet: None, servers: tuple[FakeServer, FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = servers
    theirs.fail = {3: 503}
    flags = [
        "--ours",
        ours.url,
        "--peer",
        f"slow={theirs.url}",
        "--clients",
        "1",
        "--rounds",
        "1",
        "--max-tokens",
        "3",
    ]
    monkeypatch.setattr(sys, "argv", ["peers", *flags])
    with pytest.raises(SystemExit, match=r"slow: 1 requests failed: 503: no"):
        peers.main()


async def test_rounds_with_other_load_are_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = iter([0.0, 0.9, 0.0, 0.0, 0.0, 0.0])
    monkeypatch.setattr(rounds, "busy", lambda: next(loads))
    order: list[tuple[str, int]] = []

    async def one(number: int) -> float:
        order.append(("one", number))
        return float(number)

    async def two(number: int) -> float:
        order.append(("two", number))
        return float(number)

    kept = await alternate({"one": one, "two": two}, 2, most_busy=0.1)
    assert kept.spoilt == 1
    assert kept.kept == {"one": [1.0, 2.0], "two": [1.0, 2.0]}
    assert order == [("one", 0), ("two", 0), ("two", 1), ("one", 1), ("one", 2), ("two", 2)]


async def test_a_machine_without_a_quiet_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "busy", lambda: 1.5)

    async def one(number: int) -> float:
        return 1.0

    with pytest.raises(SystemExit, match="6 of 6 rounds are spoilt"):
        await alternate({"one": one}, 2, most_busy=0.1)


def test_ratios_are_of_pairs() -> None:
    assert Ratio.of([2.0, 30.0], [1.0, 10.0]) == Ratio(2.5, 2.0, 3.0)
    assert str(Ratio(2.5, 2.0, 3.0)) == "2.50 (2.00 to 3.00)"


LISTENS = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
server.accept()
"""


def _stands_still(peer: psutil.Process, wanted: bool) -> bool:
    """Whether it comes to that soon; a signal takes a moment."""
    deadline = time.monotonic() + 10
    while (peer.status() == psutil.STATUS_STOPPED) is not wanted:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_peer_is_suspended_while_another_is_measured() -> None:
    with subprocess.Popen([sys.executable, "-c", LISTENS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        peer = psutil.Process(process.pid)
        still = Still({"peer": f"http://127.0.0.1:{int(process.stdout.readline())}/v1"})
        try:
            with still.held():
                assert _stands_still(peer, True)
                with still.but("peer"):
                    assert _stands_still(peer, False)
                assert _stands_still(peer, True)
            assert _stands_still(peer, False)
        finally:
            process.kill()
