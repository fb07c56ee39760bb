import base64
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from gemma_playground.conversation import Conversation, StoreFile, sanitize, to_chatbot
from gemma_playground.file_store import FileStore, LimitExceededError
from gemma_playground.settings import PlaygroundSettings

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8


@pytest.fixture
def store(tmp_path: Path) -> StoreFile:
    """Of one session."""
    (folder := tmp_path / "kept").mkdir()
    return partial(FileStore(folder, PlaygroundSettings()).add, "session")


def file(folder: Path, data: bytes = PNG, name: str = "a.png") -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def say(talk: Conversation, text: str, *files: str) -> None:
    talk.add_user_message({"text": text, "files": list(files)})


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
        ("a.tif", "image/tiff"),
        ("a.wav", "wav"),
        ("a.mp3", "mp3"),
        ("a.flac", "wav"),
        ("a.ogg", "wav"),
    ],
)
def test_a_file_is_sent_and_comes_back(tmp_path: Path, store: StoreFile, name: str, kind: str) -> None:
    talk = Conversation()
    say(talk, "", file(tmp_path, PNG, name))
    part = talk.messages[0]["content"][0]
    encoded = base64.b64encode(PNG).decode()
    if part["type"] == "image_url":
        assert part["image_url"]["url"] == f"data:{kind};base64,{encoded}"
    else:
        assert part["input_audio"] == {"data": encoded, "format": kind}
    assert Path(talk.to_chatbot(store)[0]["content"][0]["path"]).read_bytes() == PNG


def test_a_picture_without_a_word_is_asked_about(tmp_path: Path) -> None:
    talk = Conversation()
    say(talk, " ", file(tmp_path))
    assert [part["type"] for part in talk.messages[0]["content"]] == ["image_url", "text"]
    assert talk.messages[0]["content"][1]["text"] == "What do you see in this image?"
    with pytest.raises(gr.Error, match="Write a message"):
        say(talk, "")


def test_a_question_is_cut_off_and_given_back(tmp_path: Path, store: StoreFile) -> None:
    talk = Conversation()
    say(talk, "one", file(tmp_path))
    answered(talk, "first")
    say(talk, "two")
    answered(talk, "second")
    assert talk.pop_user_message(store) == {"text": "two", "files": []}
    assert [message["role"] for message in talk.messages] == ["user", "assistant"]
    say(talk, "two")
    asked = talk.pop_user_message(store, 2)  # The picture is the chat's first message, its words the second.
    assert asked["text"] == "one"
    assert Path(asked["files"][0]).read_bytes() == PNG
    assert talk.messages == []
    assert talk.pop_user_message(store) == {"text": "", "files": []}


def test_what_is_said_after_calls_is_what_they_gave_back(store: StoreFile) -> None:
    talk = Conversation()
    say(talk, "weather?")
    answered(talk, "", ("c1", "get_weather"), ("c2", "add"))
    assert (talk.pending_tool_call() or {})["id"] == "c1"
    say(talk, "rain")
    assert talk.messages[-1] == {"role": "tool", "tool_call_id": "c1", "content": "rain"}
    assert (talk.pending_tool_call() or {})["id"] == "c2"
    say(talk, "3")
    assert talk.pending_tool_call() is None
    titles = [each["metadata"].get("title") for each in talk.to_chatbot(store)]
    assert titles == [None, r"Tool call: get\_weather", "Tool call: add", "Tool result", "Tool result"]


def test_two_user_messages_in_a_row_are_merged() -> None:
    talk = Conversation()
    say(talk, "one")
    say(talk, "two")
    assert [part["text"] for part in talk.messages[0]["content"]] == ["one", "two"]
    assert len(talk.messages) == 1


def test_an_error_is_shown_unchanged_and_never_sent(store: StoreFile) -> None:
    talk = Conversation()
    say(talk, "one")
    told = to_chatbot(talk.messages, store, "<b>*no*</b>")[-1]
    assert told["metadata"] == {"title": "Error"}
    assert told["content"][0]["text"] == r"\<b\>\*no\*\</b\>"
    assert len(talk.messages) == 1


def test_a_stored_conversation_can_be_restored(tmp_path: Path) -> None:
    talk = Conversation()
    say(talk, "one", file(tmp_path), file(tmp_path, b"OggS", "a.ogg"))
    answered(talk, "first", ("c1", "add"))
    say(talk, "3")
    assert Conversation.from_stored({"id": talk.id, "messages": talk.messages}) == talk


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
    {"messages": [{"role": "user", "content": {"path": "/etc/passwd"}}]},
    {"messages": [{"role": [], "content": "x"}]},
    {"messages": [{"role": "user", "content": [{"type": [], "text": "x"}]}]},
    {"messages": [], "id": {"path": "/etc/passwd"}},
    {"messages": [], "settings": "x"},
    {"messages": [{"role": "user", "content": "x"}] * 10_001},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 1001}]},
]


@pytest.mark.parametrize("kept", BAD)
def test_an_invalid_conversation_is_refused(kept: Any) -> None:
    with pytest.raises(gr.Error, match="not a conversation"):
        Conversation.from_stored(kept)


def test_only_known_fields_of_a_conversation_are_used() -> None:
    made_up = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    part = {"type": "text", "text": "Hi"}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    known = [
        {"role": "user", "content": [part, image]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    more = [
        {"role": "user", "content": [{**part, "x": made_up}, {**image, "x": made_up}], "x": made_up},
        {"role": "assistant", "content": None, "tool_calls": [{**call, "x": made_up}], "metadata": made_up},
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": "3",
            "path": "/etc/passwd",
            "meta": made_up["meta"],
        },
    ]
    assert Conversation.from_stored({"id": "a", "messages": more, **made_up}).messages == known
    clean = sanitize({"id": "a", "messages": more, "settings": {"model": made_up}, "x": made_up})
    assert set(clean) == {"id", "messages", "settings"}
    assert clean["settings"] == {"model": str(made_up)}


def test_missing_space_for_a_file_is_reported() -> None:
    def refuse(*_: object) -> str:
        raise LimitExceededError("No space.")

    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    talk = Conversation(messages=[{"role": "user", "content": [image]}])
    for ask in (talk.to_chatbot, talk.pop_user_message):
        with pytest.raises(gr.Error, match="No space"):
            ask(refuse)
    assert len(talk.messages) == 1, "nothing is lost"
    with pytest.raises(gr.Error, match="was deleted"):
        say(talk, "", "/nowhere/a.png")


def wav(seconds: float) -> bytes:
    """The header of a WAV file of 16,000 bytes per second, and its samples."""
    return b"RIFF".ljust(28) + (16_000).to_bytes(4, "little") + bytes(12 + round(16_000 * seconds))


@pytest.mark.parametrize(
    ("text", "content", "name", "sent"),
    [
        ("", wav(40), "a.wav", "Transcribe"),
        ("", wav(20), "a.wav", "What do you hear?"),
        ("", bytes(600_000), "a.mp3", "Transcribe"),
        ("", bytes(300_000), "a.m4a", "What do you hear?"),
        ("transcribe.", wav(1), "a.wav", "transcribe."),
        ("Who speaks?", wav(40), "a.wav", "Who speaks?"),
    ],
)
def test_a_long_recording_or_the_word_asks_for_a_transcript(
    tmp_path: Path, text: str, content: bytes, name: str, sent: str
) -> None:
    talk = Conversation()
    say(talk, text, file(tmp_path, content, name))
    assert talk.messages[0]["content"][1]["text"] == sent
    recording = talk.recording_to_transcribe()
    assert (recording is not None) == (sent.lower().startswith("transcribe"))
    assert recording is None or recording[1] == content


def test_only_one_recording_is_transcribed(tmp_path: Path) -> None:
    talk = Conversation()
    assert talk.recording_to_transcribe() is None
    say(talk, "Transcribe", file(tmp_path, wav(1), "a.wav"), file(tmp_path, wav(2), "b.wav"))
    assert talk.recording_to_transcribe() is None
    talk = Conversation()
    say(talk, "Transcribe", file(tmp_path))
    assert talk.recording_to_transcribe() is None
