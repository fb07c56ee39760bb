"""``gemma-triton chat`` with a fake server."""

import base64
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from packages.launcher.tests.fake_openai import FakeServer, serving
from prompt_toolkit.history import InMemoryHistory
from rich.console import Console

from gemma_launcher.__main__ import main
from gemma_launcher.errors import CommandError
from gemma_launcher.tools.chat import command, images
from gemma_launcher.tools.chat.audio import read_audio
from gemma_launcher.tools.chat.view import MarkdownView, printable, split_completed

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(FakeServer()) as server:
        yield server


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "my cat.png"
    path.write_bytes(PIXEL)
    return path


def chat(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, *lines: str, flags: tuple[str, ...] = ()
) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return main(["chat", "--base-url", server.url, *flags])


def test_one_message(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--system", "Be brief.", "--max-tokens", "9", "--temperature", "0")
    assert main(["chat", "--base-url", server.url, *flags, "Hello, how are you?"]) == 0
    assert capsys.readouterr().out == "Hello there!\n"
    (asked,) = server.asked
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello, how are you?"},
    ]
    assert (asked["model"], asked["max_tokens"], asked["temperature"]) == ("fake", 9, 0)


def test_the_lines_of_a_pipe_are_one_chat(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(server, monkeypatch, "one", "", "two", "/clear", "three", "/exit", "four") == 0
    assert capsys.readouterr().out == "Hello there!\n" * 3
    roles = [[message["role"] for message in asked["messages"]] for asked in server.asked]
    assert roles == [["user"], ["user", "assistant", "user"], ["user"]]


def test_an_image_by_command_and_by_a_path_in_the_message(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, cat: Path
) -> None:
    dropped = str(cat).replace(" ", "\\ ")
    assert (
        chat(
            server, monkeypatch, f"/image {cat}", "what is it?", f"and this {dropped} here?", dropped, "this?"
        )
        == 0
    )
    contents = [asked["messages"][-1]["content"] for asked in server.asked]
    texts = [content[-1]["text"] for content in contents]
    assert texts == ["what is it?", "and this here?", "this?"]
    for content in contents:
        assert content[0]["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"


def test_audio_by_command_and_by_flag(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sound = tmp_path / "sound.wav"
    sound.write_bytes(b"RIFF1234WAVEfmt ")
    assert chat(server, monkeypatch, "one", f"/audio {sound}", "two", flags=("--audio", str(sound))) == 0
    part = {"data": base64.b64encode(sound.read_bytes()).decode(), "format": "wav"}
    for asked in server.asked:
        first, text = asked["messages"][-1]["content"]
        assert first == {"type": "input_audio", "input_audio": part}
        assert text["type"] == "text"


@pytest.mark.parametrize(
    ("start", "name"), [(b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3\x04", "mp3"), (b"\xff\xfb\x90", "mp3")]
)
def test_the_format_of_audio_is_found_in_its_content(tmp_path: Path, start: bytes, name: str) -> None:
    (tmp_path / "sound").write_bytes(start)
    assert read_audio(tmp_path / "sound")["input_audio"]["format"] == name


def test_tokens(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat(server, monkeypatch, "/tokens", "one two", "/tokens") == 0
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["no messages yet", "this chat: 7 tokens of 4,096"]
    assert said[2].startswith("last response: 3 tokens for a prompt of 7, ")
    server.tokenize = False
    assert chat(server, monkeypatch, "one two", "/tokens") == 0
    assert capsys.readouterr().err.startswith("this server does not count tokens\nlast response: 3 tokens")


def test_responses_as_json(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.pieces = ("Grüße\n", "\x1b!")
    assert chat(server, monkeypatch, "one", "/help", "two", flags=("--json",)) == 0
    said = capsys.readouterr()
    first, second = map(json.loads, said.out.splitlines())
    assert (first["model"], first["content"], first["finish_reason"]) == ("fake", "Grüße\n\x1b!", "stop")
    assert second["usage"] == {"prompt_tokens": 6, "completion_tokens": 2, "total_tokens": 8}
    assert "/tokens" in said.err
    assert main(["chat", "--base-url", server.url, "--json", "one"]) == 0
    assert json.loads(capsys.readouterr().out)["content"] == "Grüße\n\x1b!"


def test_save_and_load(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    assert chat(server, monkeypatch, "/system Be kind.", "one", f"/save {file}") == 0
    saved = json.loads(file.read_text())["messages"]
    assert [message["role"] for message in saved] == ["system", "user", "assistant"]
    assert chat(server, monkeypatch, f"/load {file}", "two") == 0
    assert server.asked[-1]["messages"] == [*saved, {"role": "user", "content": "two"}]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/nothing", "there is no command /nothing"),
        ("/image", "an argument is missing: /image PATH"),
        ("/image /no/such.png", "/no/such.png cannot be read: No such file or directory"),
        ("/image {text}", "is not an image"),
        ("/image \0", "cannot be read"),
        ("/audio", "an argument is missing: /audio PATH"),
        ("/audio {text}", "is not audio in WAV, FLAC, Ogg or MP3 format"),
        ("/load {text}", "is not a saved chat"),
        ("/save /no/such/folder/file", "cannot be written: No such file or directory"),
    ],
)
def test_a_failed_command_is_one_sentence(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    line: str, words: str,
) -> None:  # fmt: skip
    text = tmp_path / "text.png"
    text.write_text('{"messages": 3}')
    assert chat(server, monkeypatch, line.format(text=text)) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert server.asked == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--model", "other"), "status 404: The model 'other' does not exist"),
        (("--base-url", "http://127.0.0.1:9/v1"), "there is no server at http://127.0.0.1:9/v1"),
        (("--base-url", "localhost:8080"), "is not a valid base URL"),
        (("--base-url", "http://["), "is not a valid base URL"),
        (("--base-url", "http://localhost:99999"), "is not a valid base URL"),
        (("--image", "/no/such.png"), "/no/such.png cannot be read"),
    ],
)
def test_a_failed_request_is_one_sentence(
    server: FakeServer, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], words: str
) -> None:
    assert main(["chat", "--base-url", server.url, *flags, "hello"]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_an_interrupted_response(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.break_off = True
    assert chat(server, monkeypatch, "one") == 1
    assert "the response was interrupted: the engine broke" in capsys.readouterr().err


def test_paths_as_terminals_write_them(cat: Path) -> None:
    escaped, uri = str(cat).replace(" ", "\\ "), cat.as_uri()
    for written in (f"'{cat}'", f'"{cat}"', escaped, uri):
        assert images.extract_image_paths(f"see {written} now") == ("see now", [cat])
        assert images.parse_path(written) == cat
    assert images.parse_path(str(cat)) == cat


@pytest.mark.parametrize(
    "line", ["it's a cat.png, isn't it?", "  two  spaces ", "/etc/hosts and ~", "a\\", "\0.png"]
)
def test_a_line_without_images_is_unchanged(line: str) -> None:
    assert images.extract_image_paths(line) == (line, [])


def test_only_images_are_sent(tmp_path: Path) -> None:
    for name, start in {"a.jpg": b"\xff\xd8\xff\xe0", "b.gif": b"GIF89a", "c.webp": b"RIFF1234WEBP"}.items():
        (tmp_path / name).write_bytes(start)
        assert images.read_image(tmp_path / name)["image_url"]["url"].startswith("data:image/")
    (tmp_path / "d.png").write_bytes(b"<svg>")
    with pytest.raises(CommandError, match="is not an image"):
        images.read_image(tmp_path / "d.png")


def test_markdown_is_completed_block_by_block() -> None:
    assert split_completed("# One\n\ntwo") == ("# One\n\n", "two")
    assert split_completed("```\na\n\nb") == ("", "```\na\n\nb")
    assert split_completed("```\na\n\nb\n```\n\nc") == ("```\na\n\nb\n```\n\n", "c")
    assert split_completed("one line") == ("", "one line")


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07\x9bc\td\ne") == "a[2Jbc\td\ne"


def test_a_response_as_markdown() -> None:
    out = io.StringIO()
    MarkdownView(Console(file=out, force_terminal=False, width=60)).show(
        iter(["# Ti", "tle\n\nSome *wo", "rds*\n\n- x"])
    )
    said = out.getvalue()
    assert "Title" in said
    assert "Some words" in said
    assert "*" not in said
    assert said.count("Title") == 1


class Terminal:
    """The command in a pseudo-terminal."""

    def __init__(self, server: FakeServer, home: Path) -> None:
        self.controller, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gemma_launcher", "chat", "--base-url", server.url],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "XDG_STATE_HOME": str(home), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            start_new_session=True,
        )
        os.close(terminal)
        os.set_blocking(self.controller, False)
        self.said = ""

    def type(self, text: str) -> None:
        os.write(self.controller, text.encode())

    def expect(self, words: str, times: int = 1) -> None:
        deadline = time.monotonic() + 30
        while self.said.count(words) < times:
            assert time.monotonic() < deadline, self.said
            self.read()
            time.sleep(0.02)

    def read(self) -> None:
        with suppress(BlockingIOError):
            self.said += os.read(self.controller, 65_536).decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.controller)


def test_the_input_history_is_in_memory_if_it_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert isinstance(command._input_history(), InMemoryHistory)


def test_ctrl_c_stops_the_response_and_ctrl_d_leaves(server: FakeServer, tmp_path: Path) -> None:
    server.pieces, server.pause_s = ("word ",) * 500, 0.02
    terminal = Terminal(server, tmp_path)
    try:
        terminal.expect("fake at http://127.0.0.1")
        terminal.type("tell me\r")
        terminal.expect("word word")
        os.killpg(terminal.process.pid, signal.SIGINT)  # what the terminal makes of Ctrl-C
        terminal.expect("(stopped)")
        server.pieces, server.pause_s = ("**done**",), 0.0
        terminal.type("/nothing\r")
        terminal.expect("there is no command /nothing")
        terminal.type("again\r")
        terminal.expect("done")
        terminal.type("\x04")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.close()
    _, second = server.asked
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"].startswith("word ")
    history = tmp_path / "gemma-triton" / "chat_history"
    assert "tell me" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0
