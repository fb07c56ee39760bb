"""``gemma-triton transcribe`` with a fake server."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packages.launcher.tests.fake_openai import FakeServer, serving

from gemma_launcher.__main__ import main


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(FakeServer()) as server:
        yield server


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(b"RIFF")
    return path


def field(form: bytes, name: str) -> str:
    return form.split(f'name="{name}"\r\n\r\n'.encode(), 1)[1].split(b"\r\n", 1)[0].decode()


def test_text_to_the_standard_output(
    server: FakeServer, audio: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", "--base-url", server.url, str(audio)]) == 0
    assert capsys.readouterr().out == "Hello there!\n"
    (form,) = server.forms
    sent = {name: field(form, name) for name in ("model", "response_format", "stream")}
    assert sent == {"model": "fake", "response_format": "verbose_json", "stream": "true"}
    assert b'name="language"' not in form
    assert b'filename="talk.wav"' in form


@pytest.mark.parametrize(("kind", "suffix"), [("srt", "srt"), ("vtt", "vtt"), ("text", "txt")])
def test_files_of_several_recordings(
    server: FakeServer, audio: Path, tmp_path: Path, kind: str, suffix: str
) -> None:
    (tmp_path / "song.mp3").write_bytes(b"ID3")
    (out := tmp_path / "out").mkdir()
    files = [str(audio), str(tmp_path / "song.mp3")]
    flags = ["--format", kind, "--language", "de", "--output", str(out)]
    assert main(["transcribe", "--base-url", server.url, *files, *flags]) == 0
    assert sorted(path.name for path in out.iterdir()) == [f"song.{suffix}", f"talk.{suffix}"]
    assert (out / f"talk.{suffix}").read_text(encoding="utf-8") == "Hello there!\n"
    assert [field(form, "language") for form in server.forms] == ["de", "de"]
    asked_for = {"srt": "srt", "vtt": "vtt"}.get(kind, "verbose_json")
    assert field(server.forms[0], "response_format") == asked_for


def test_json_has_what_the_server_sent(server: FakeServer, audio: Path, tmp_path: Path) -> None:
    target = tmp_path / "talk.json"
    flags = ["--format", "json", "--output", str(target)]
    assert main(["transcribe", "--base-url", server.url, str(audio), *flags]) == 0
    found = json.loads(target.read_text(encoding="utf-8"))
    assert (found["text"], found["duration"]) == ("Hello there!", 3)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["nowhere.wav"], "nowhere.wav cannot be read"),
        (["TALK", "TALK", "--output", "nofolder.srt"], "nofolder.srt is not a folder"),
        (["TALK", "--output", "no/folder/a.srt"], "a.srt cannot be written"),
        (["TALK", "--language", "refused"], "The file 'file' is not audio"),
    ],
)
def test_errors_are_one_sentence(
    server: FakeServer, audio: Path, capsys: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    given = [str(audio) if flag == "TALK" else flag for flag in flags]
    assert main(["transcribe", "--base-url", server.url, *given]) == 1
    assert says in capsys.readouterr().err


def test_a_response_that_ends_early_is_an_error(
    server: FakeServer, audio: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.break_off = True
    assert main(["transcribe", "--base-url", server.url, str(audio)]) == 1
    assert "ended before the transcript was complete" in capsys.readouterr().err


def test_the_progress_is_shown_on_a_terminal(server: FakeServer, audio: Path) -> None:
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "gemma_launcher", "transcribe", "--base-url", server.url, str(audio)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=child, check=True)
    os.close(child)
    shown = os.read(parent, 2**16).decode()
    os.close(parent)
    assert "talk.wav" in shown
    assert done.stdout == b"Hello there!\n"
