import base64
from pathlib import Path
from typing import Any

import pytest

from gemma_playground import media
from gemma_playground.client import Answer, Call
from gemma_playground.conversation import Conversation
from gemma_playground.media import Refused

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
LIMIT = 1000


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    media._cached.cache_clear()


def file(folder: Path, data: bytes, name: str = "a.png") -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def answered(talk: Conversation, text: str = "", *calls: Call) -> None:
    talk.reply().grow(Answer(text=text, calls=dict(enumerate(calls))))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF1234WEBP", "image/webp"),
        (b"GIF89a", "image/gif"),
        (b"BM1234", "image/bmp"),
        (b"MM\0*", "image/tiff"),
        (b"RIFF1234WAVE", "wav"),
        (b"ID3x", "mp3"),
        (b"\xff\xfbxx", "mp3"),
        (b"fLaC", "wav"),
        (b"OggS", "wav"),
    ],
)
def test_a_file_is_what_it_begins_like(tmp_path: Path, data: bytes, kind: str) -> None:
    part = media.part(file(tmp_path, data), LIMIT)
    encoded = base64.b64encode(data).decode()
    if part["type"] == "image_url":
        assert part["image_url"]["url"] == f"data:{kind};base64,{encoded}"
    else:
        assert part["input_audio"] == {"data": encoded, "format": kind}
    assert Path(media.cached(part)).read_bytes() == data


@pytest.mark.parametrize("data", [b"<svg onload=alert(1)>", b"", b"%PDF-1.4", PNG + b"\0" * LIMIT])
def test_other_files_are_refused_with_a_sentence(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Refused, match=r"a\.png is .*\."):
        media.part(file(tmp_path, data), LIMIT)


def test_a_picture_without_a_word_is_asked_about(tmp_path: Path) -> None:
    talk = Conversation()
    talk.say(" ", [file(tmp_path, PNG)], LIMIT)
    assert [part["type"] for part in talk.to_send()[0]["content"]] == ["image_url", "text"]
    assert talk.title == "What do you see in this image?"
    with pytest.raises(Refused, match="Write a message"):
        talk.say("", [], LIMIT)


def test_retry_undo_and_edit(tmp_path: Path) -> None:
    talk = Conversation()
    talk.say("one", [file(tmp_path, PNG)], LIMIT)
    answered(talk, "first")
    talk.say("two", [], LIMIT)
    answered(talk, "second")
    talk.retry()
    assert [message["role"] for message in talk.messages] == ["user", "assistant", "user"]
    assert talk.undo() == {"text": "two", "files": []}
    talk.edit(1, "other")  # The picture is the chat's first message, its words the second.
    assert [part.get("text") for part in talk.messages[0]["content"]] == [None, "other"]
    asked = talk.undo()
    assert Path(asked["files"][0]).read_bytes() == PNG
    assert talk.messages == []
    assert talk.undo() == {"text": "", "files": []}


def test_a_call_waits_for_its_answer_and_is_left_out_without() -> None:
    talk = Conversation()
    talk.say("weather?", [], LIMIT)
    answered(talk, "", Call("c1", "get_weather", "{}"), Call("c2", "add", "{}"))
    assert (talk.waiting() or {})["id"] == "c1"
    talk.answer_call("rain")
    assert (talk.waiting() or {})["id"] == "c2"
    sent = talk.to_send()
    assert [call["id"] for call in sent[1]["tool_calls"]] == ["c1"]
    assert sent[2] == {"role": "tool", "tool_call_id": "c1", "content": "rain"}
    talk.answer_call("3")
    assert talk.waiting() is None
    shown = talk.shown()
    assert [each["metadata"].get("title") for each in shown] == [
        None,
        r"Call of get\_weather",
        "Call of add",
        "Answer",
        "Answer",
    ]


def test_two_questions_in_a_row_are_one_and_an_empty_answer_is_none() -> None:
    talk = Conversation()
    talk.say("one", [], LIMIT)
    answered(talk)
    talk.say("two", [], LIMIT)
    assert [part["text"] for part in talk.to_send()[0]["content"]] == ["one", "two"]
    assert len(talk.to_send()) == 1


def test_an_error_is_shown_as_it_is_and_never_sent() -> None:
    talk = Conversation()
    talk.say("one", [], LIMIT)
    told = talk.shown("<b>*no*</b>")[-1]
    assert told["metadata"] == {"title": "Not answered"}
    assert told["content"][0]["text"] == r"\<b\>\*no\*\</b\>"
    assert len(talk.to_send()) == 1


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    talk, other = Conversation(), Conversation()
    talk.say("one", [file(tmp_path, PNG), file(tmp_path, b"OggS", "a.ogg")], LIMIT)
    answered(talk, "first", Call("c1", "add", "{}"))
    talk.answer_call("3")
    other.restore({"id": talk.id, "messages": talk.messages}, LIMIT)
    assert (other.id, other.messages) == (talk.id, talk.messages)


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
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,%%"}}]}]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "A" * 2000}}]}
        ]
    },
    {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}]},
]


@pytest.mark.parametrize("kept", BAD)
def test_what_is_no_conversation_is_refused(kept: Any) -> None:
    with pytest.raises(Refused, match=r"\.$"):
        Conversation().restore(kept, LIMIT)
