import base64
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from gemma_playground.conversation import Conversation

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))


def file(folder: Path, data: bytes = PNG, name: str = "a.png") -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def say(talk: Conversation, text: str, *files: str) -> None:
    talk.say({"text": text, "files": list(files)})


def answered(talk: Conversation, text: str = "", *calls: tuple[str, str]) -> None:
    made = [
        {"id": number, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for number, name in calls
    ]
    talk.messages.append({"role": "assistant", "content": text, "tool_calls": made})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "image/png"),
        ("a.JPEG", "image/jpeg"),
        ("a.jpg", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.gif", "image/gif"),
        ("a.bmp", "image/bmp"),
        ("a.tiff", "image/tiff"),
        ("a.wav", "wav"),
        ("a.mp3", "mp3"),
        ("a.flac", "wav"),
        ("a.ogg", "wav"),
    ],
)
def test_a_file_is_sent_and_comes_back(tmp_path: Path, name: str, kind: str) -> None:
    talk = Conversation()
    say(talk, "", file(tmp_path, PNG, name))
    part = talk.messages[0]["content"][0]
    encoded = base64.b64encode(PNG).decode()
    if part["type"] == "image_url":
        assert part["image_url"]["url"] == f"data:{kind};base64,{encoded}"
    else:
        assert part["input_audio"] == {"data": encoded, "format": kind}
    assert Path(talk.shown()[0]["content"][0]["path"]).read_bytes() == PNG


def test_a_picture_without_a_word_is_asked_about(tmp_path: Path) -> None:
    talk = Conversation()
    say(talk, " ", file(tmp_path))
    assert [part["type"] for part in talk.messages[0]["content"]] == ["image_url", "text"]
    assert talk.messages[0]["content"][1]["text"] == "What do you see in this image?"
    with pytest.raises(gr.Error, match="Write a message"):
        say(talk, "")


def test_a_question_is_cut_off_and_given_back(tmp_path: Path) -> None:
    talk = Conversation()
    say(talk, "one", file(tmp_path))
    answered(talk, "first")
    say(talk, "two")
    answered(talk, "second")
    assert talk.cut() == {"text": "two", "files": []}
    assert [message["role"] for message in talk.messages] == ["user", "assistant"]
    say(talk, "two")
    asked = talk.cut(2)  # The picture is the chat's first message, its words the second.
    assert asked["text"] == "one"
    assert Path(asked["files"][0]).read_bytes() == PNG
    assert talk.messages == []
    assert talk.cut() == {"text": "", "files": []}


def test_what_is_said_after_calls_is_what_they_gave_back() -> None:
    talk = Conversation()
    say(talk, "weather?")
    answered(talk, "", ("c1", "get_weather"), ("c2", "add"))
    assert (talk.waiting() or {})["id"] == "c1"
    say(talk, "rain")
    assert talk.messages[-1] == {"role": "tool", "tool_call_id": "c1", "content": "rain"}
    assert (talk.waiting() or {})["id"] == "c2"
    say(talk, "3")
    assert talk.waiting() is None
    titles = [each["metadata"].get("title") for each in talk.shown()]
    assert titles == [None, r"Call of get\_weather", "Call of add", "Answer", "Answer"]


def test_two_questions_in_a_row_are_one() -> None:
    talk = Conversation()
    say(talk, "one")
    say(talk, "two")
    assert [part["text"] for part in talk.messages[0]["content"]] == ["one", "two"]
    assert len(talk.messages) == 1


def test_an_error_is_shown_as_it_is_and_never_sent() -> None:
    talk = Conversation()
    say(talk, "one")
    told = talk.shown("<b>*no*</b>")[-1]
    assert told["metadata"] == {"title": "Not answered"}
    assert told["content"][0]["text"] == r"\<b\>\*no\*\</b\>"
    assert len(talk.messages) == 1


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    talk = Conversation()
    say(talk, "one", file(tmp_path), file(tmp_path, b"OggS", "a.ogg"))
    answered(talk, "first", ("c1", "add"))
    say(talk, "3")
    assert Conversation.of({"id": talk.id, "messages": talk.messages}) == talk


SVG = "data:image/svg+xml;base64,PHN2Zy8+"
BAD: list[Any] = [
    None,
    [],
    "x",
    {},
    {"messages": 3},
    {"messages": [3]},
    {"messages": [{"role": "user"}]},
    {"messages": [{"role": "root", "content": "x"}]},
    {"messages": [{"role": "tool", "content": "x"}]},
    {"messages": [{"role": "user", "content": [{"type": "file", "file": {"path": "/etc/passwd"}}]}]},
    {"messages": [{"role": "user", "content": [{"path": "/etc/passwd"}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}]},
    {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "http://x/png;base64,AAAA"}}],
            }
        ]
    },
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,%%"}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": SVG}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "A" * 9}}]}]},
    {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}]},
]


@pytest.mark.parametrize("kept", BAD)
def test_what_is_no_conversation_is_refused(kept: Any) -> None:
    with pytest.raises(gr.Error, match="no conversation"):
        Conversation.of(kept)
