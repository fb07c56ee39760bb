import os
import threading
from pathlib import Path

import pytest

from gemma_launcher.console import Console, LogLine, print_error, render, wants_colour


def test_plain_lines_have_a_prefix_and_a_level() -> None:
    assert (
        render("triton", LogLine("loading", "info", "12:00:01"), colour=False)
        == "triton     | 12:00:01 loading"
    )
    assert render("gateway", LogLine("odd", "warning"), colour=False) == "gateway    | warning: odd"


def test_coloured_lines_have_the_same_text() -> None:
    line = render("triton", LogLine("bad", "error", "12:00:01"), colour=True)
    assert line == "\x1b[36mtriton     |\x1b[0m \x1b[2m12:00:01 \x1b[0m\x1b[31merror: bad\x1b[0m"


def test_wants_colour() -> None:
    controller, terminal = os.openpty()
    try:
        assert wants_colour(terminal, {})
        assert not wants_colour(terminal, {"NO_COLOR": "1"})
        assert not wants_colour(terminal, {"TERM": "dumb"})
    finally:
        os.close(controller)
        os.close(terminal)


def test_no_colour_in_a_file(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        assert not wants_colour(file.fileno(), {})


def test_lines_are_written_in_order(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        console = Console(file.fileno())
        for number in range(100):
            console.write_line("triton", LogLine(str(number)))
        console.write_block("the\nend")
        console.close()
    written = (tmp_path / "log").read_text().splitlines()
    assert written == [f"triton     | {number}" for number in range(100)] + ["the", "end"]


def test_an_unread_pipe_blocks_nothing_and_dropped_lines_are_reported() -> None:
    reading, writing = os.pipe()
    console = Console(writing)
    for _ in range(12_000):
        console.write_line("triton", LogLine("x" * 100))
    console.close(timeout_s=0.1)
    drain = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(reading, 65_536), b"")])
    drain.start()
    console.close(timeout_s=5)
    os.close(writing)
    drain.join()
    os.close(reading)
    assert not console.is_alive


def test_a_closed_pipe_is_ignored() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    console = Console(writing)
    console.log("hello")
    console.close()
    os.close(writing)
    assert not console.is_alive


def test_print_error(capfd: pytest.CaptureFixture[str]) -> None:
    print_error("port 1 is taken")
    assert capfd.readouterr().err == "error: port 1 is taken\n"
