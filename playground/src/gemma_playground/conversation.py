"""A conversation: OpenAI messages with their files, and their conversion to messages of Gradio's chatbot."""

import base64
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import gradio as gr

from gemma_playground.file_store import MEDIA_TYPES, LimitExceededError
from gemma_playground.settings import MIB

Message = dict[str, Any]
StoreFile = Callable[[str, bytes], str]
"""Stores a file, given its suffix and content, for the current session; returns its path."""
AUDIO_SUFFIXES: Final = tuple(kind for kind, type_ in MEDIA_TYPES.items() if type_.startswith("audio/"))
CHATBOT_ROLES: Final = {"user": "user", "assistant": "assistant", "tool": "assistant"}
"""Role of a message → role in the chatbot."""
TRANSCRIBE: Final = "Transcribe"
"""A message with this text and one audio file is sent to the transcription API, which accepts an hour."""
LONG_RECORDING_S: Final = 30
"""A longer recording without text is transcribed."""
COMPRESSED_BYTES_PER_S: Final = 16_000
"""Of an MP3 or similar file; the length of a recording only decides about its default prompt."""
DEFAULT_PROMPTS: Final = {"image_url": "What do you see in this image?", "input_audio": "What do you hear?"}
"""The prompt for a file that is sent without text."""
MAX_MESSAGES: Final = 10_000
MAX_BYTES: Final = 64 * MIB
"""Limit of a conversation, with its files in base64; servers accept no larger requests."""
MAX_PARTS: Final = 1_000
"""Limit of content parts, and of tool calls, in a message."""


@dataclass
class Conversation:
    """The messages of one chat of a tab."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    messages: list[Message] = field(default_factory=list)
    size: int = field(default=0, compare=False)
    """Approximate size, bytes."""

    @classmethod
    def from_stored(cls, kept: Any) -> Self:
        """A conversation from the browser's storage or from a file. Raises gr.Error if it is not valid."""
        try:
            clean = sanitize(kept)
            for file in file_parts(clean["messages"]):
                decode_file(file)
        except ValueError as error:
            raise gr.Error("This is not a conversation of a playground.", print_exception=False) from error
        return cls(clean["id"] or uuid.uuid4().hex, clean["messages"], messages_size(clean["messages"]))

    def add_user_message(self, message: Message) -> None:
        """Adds a user message or a tool result. Raises gr.Error for an empty message."""
        self._check_size(message)
        text, parts = message["text"].strip(), [_to_part(file) for file in message["files"]]
        if not text and not parts:
            raise gr.Error("Write a message, or add an image or an audio file.", print_exception=False)
        if (call := self.pending_tool_call()) and not parts:
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
            return
        parts.append({"type": "text", "text": text or _default_prompt(parts)})
        if (
            self.messages and self.messages[-1]["role"] == "user"
        ):  # it got no response: both are sent as one message
            parts = [*_parts(self.messages.pop()), *parts]
        self.messages.append({"role": "user", "content": parts})
        self.size = messages_size(self.messages)

    def _check_size(self, message: Message) -> None:
        sizes = [Path(file).stat().st_size for file in message["files"] if Path(file).exists()]
        if self.size + len(message["text"]) + sum(sizes) * 4 // 3 > MAX_BYTES:
            sentence = (
                f"A conversation may have at most {MAX_BYTES // MIB} MB with its files. Start a new one."
            )
            raise gr.Error(sentence, print_exception=False)

    def pop_user_message(self, store: StoreFile, shown: int | None = None) -> Message:
        """Removes and returns the last user message and removes everything after it.

        With ``shown``, the last user message among the first ``shown`` messages of the chatbot.
        """
        places = [at for at, message in enumerate(self.messages) for _ in range(_chatbot_length(message))]
        at = max((at for at in places[:shown] if self.messages[at]["role"] == "user"), default=0)
        parts = [part for message in self.messages[at : at + 1] for part in _parts(message)]
        found = [_store_part(part, store) for part in parts if part["type"] != "text"]
        del self.messages[at:]
        self.size = messages_size(self.messages)
        return {"text": "\n".join(part["text"] for part in parts if part["type"] == "text"), "files": found}

    def recording_to_transcribe(self) -> tuple[str, bytes] | None:
        """The file that the last message asks to transcribe, with its suffix."""
        parts = _parts(self.messages[-1]) if self.messages else []
        texts = [part["text"].strip(" .").lower() for part in parts if part["type"] == "text"]
        files = [part for part in parts if part["type"] != "text"]
        asked = texts == [TRANSCRIBE.lower()] and [part["type"] for part in files] == ["input_audio"]
        return decode_file(files[0]) if asked else None

    def pending_tool_call(self) -> Message | None:
        """The first tool call of the last response that has no result yet."""
        with_result = {message.get("tool_call_id") for message in self.messages}
        others = [message for message in self.messages if message["role"] != "tool"]
        calls = others[-1].get("tool_calls", ()) if others else ()
        return next((call for call in calls if call["id"] not in with_result), None)

    def to_chatbot(self, store: StoreFile) -> list[Message]:
        """The chatbot's messages. Raises gr.Error if its files exceed a limit."""
        return to_chatbot(self.messages, store)


def to_chatbot(messages: Iterable[Message], store: StoreFile, error: str = "") -> list[Message]:
    """The messages for the chatbot; an error is shown at the end and is not part of the conversation."""
    failed = [_chatbot_message("assistant", _escape_markdown(error), title="Error")] if error else []
    return [*(each for message in messages for each in _chatbot_messages(message, store)), *failed]


def sanitize(kept: Any) -> Message:
    """The known fields of a conversation from an untrusted source. Raises ValueError."""
    try:
        settings = kept.get("settings") or {}
        named = {str(name): str(value) for name, value in settings.items() if value}
        if len(messages := kept["messages"]) > MAX_MESSAGES or not isinstance(messages, list):
            raise ValueError(f"More than {MAX_MESSAGES} messages.")
        sanitized = [_sanitize_message(message) for message in messages]
        return {"id": _require_string(kept.get("id") or ""), "settings": named, "messages": sanitized}
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("This is not a conversation.") from error


def _sanitize_message(message: Message) -> Message:
    role, content = _require_string(message["role"]), message["content"]
    if role not in CHATBOT_ROLES:
        raise ValueError(f"There is no role {role[:40]!r}.")
    if role == "tool":
        return {
            "role": role,
            "tool_call_id": _require_string(message["tool_call_id"]),
            "content": _require_string(content),
        }
    if isinstance(content, list):
        content = [_sanitize_part(part) for part in _require_short_list(content)]
    elif content is not None:
        content = _require_string(content)
    calls = [_sanitize_tool_call(call) for call in _require_short_list(message.get("tool_calls") or [])]
    return {"role": role, "content": content} | ({"tool_calls": calls} if calls else {})


def _sanitize_part(part: Message) -> Message:
    kind = part["type"]
    if kind == "text":
        return {"type": kind, "text": _require_string(part["text"])}
    names = {"image_url": ("url",), "input_audio": ("data", "format")}[kind]
    return {"type": kind, kind: {name: _require_string(part[kind][name]) for name in names}}


def _sanitize_tool_call(call: Message) -> Message:
    function = {name: _require_string(call["function"][name]) for name in ("name", "arguments")}
    return {"id": _require_string(call["id"]), "type": "function", "function": function}


def _require_string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"Not a string: {type(value).__name__}.")
    return value


def _require_short_list(items: Any) -> list[Any]:
    if not isinstance(items, list) or len(items) > MAX_PARTS:
        raise TypeError(f"Not a list of at most {MAX_PARTS} items.")
    return items


def messages_size(messages: Iterable[Message]) -> int:
    """Approximate size of the texts and files, bytes."""
    return sum(len(text) for message in messages for text in _texts(message))


def _texts(message: Message) -> Iterator[str]:
    """The long strings of a message."""
    for part in _parts(message):
        yield part["text"] if part["type"] == "text" else max(part[part["type"]].values(), key=len)
    yield from (call["function"]["arguments"] for call in message.get("tool_calls", ()))


def file_parts(messages: Iterable[Message]) -> Iterator[Message]:
    """The content parts that are files."""
    return (part for each in messages for part in _parts(each) if part["type"] != "text")


def _chatbot_length(message: Message) -> int:
    """The number of chatbot messages that show it."""
    if message["role"] == "tool":
        return 1
    return len(_parts(message)) + len(message.get("tool_calls", ()))


def _parts(message: Message) -> list[Message]:
    content = message["content"] or []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _chatbot_messages(message: Message, store: StoreFile) -> Iterator[Message]:
    """A chatbot message for each content part and each tool call."""
    speaker, fence = CHATBOT_ROLES[message["role"]], "```json\n{}\n```"
    if message["role"] == "tool":
        result, call_id = fence.format(message["content"]), message["tool_call_id"]
        yield _chatbot_message(speaker, result, title="Tool result", parent_id=call_id)
        return
    for part in _parts(message):
        if part["type"] == "text":
            yield _chatbot_message(speaker, part["text"])
        else:
            yield {
                "role": speaker,
                "content": [{"path": _store_part(part, store), "alt_text": "Attached file"}],
            }
    for call in message.get("tool_calls", ()):
        title, log = (
            _escape_markdown(f"Tool call: {call['function']['name']}"),
            "your next message is its result",
        )
        yield _chatbot_message(
            speaker, fence.format(call["function"]["arguments"]), title=title, id=call["id"], log=log
        )


def _chatbot_message(role: str, text: str, **metadata: str) -> Message:
    """Text as a content part, because Gradio removes the indentation of plain strings."""
    return {"role": role, "content": [{"type": "text", "text": str(text)}], "metadata": metadata}


def _escape_markdown(text: str) -> str:
    """Escapes the characters that Markdown interprets."""
    return re.sub(r"([\\`*_\[\]<>&#~|])", r"\\\1", text)


def _to_part(path: str) -> Message:
    """A file as a content part. OpenAI has no names for FLAC and Ogg, which the server detects."""
    try:
        data = base64.b64encode(Path(path).read_bytes()).decode()
    except OSError as error:
        raise gr.Error("A file was deleted. Add it again.", print_exception=False) from error
    kind = Path(path).suffix[1:].lower()
    if kind in AUDIO_SUFFIXES:
        audio = {"data": data, "format": "mp3" if kind == "mp3" else "wav"}
        return {"type": "input_audio", "input_audio": audio}
    return {"type": "image_url", "image_url": {"url": f"data:{MEDIA_TYPES[kind]};base64,{data}"}}


def _default_prompt(parts: list[Message]) -> str:
    first = parts[0]
    if len(parts) == 1 and first["type"] == "input_audio":
        content = base64.b64decode(first["input_audio"]["data"])
        is_wav = content[:4] == b"RIFF" and int.from_bytes(content[28:32], "little") > 0
        rate = int.from_bytes(content[28:32], "little") if is_wav else COMPRESSED_BYTES_PER_S
        if len(content) > LONG_RECORDING_S * rate:
            return TRANSCRIBE
    return DEFAULT_PROMPTS[str(first["type"])]


def decode_file(part: Message) -> tuple[str, bytes]:
    """The suffix and the content of a file in a content part. Raises ValueError for a remote URL."""
    audio = part["input_audio"] if part["type"] == "input_audio" else None
    url = f"data:audio/{audio['format']};base64,{audio['data']}" if audio else part["image_url"]["url"]
    head, marked, data = url.partition(";base64,")
    kind = head.removeprefix("data:").partition("/")[2]
    if not marked or not head.startswith("data:") or kind not in MEDIA_TYPES:
        raise ValueError("URLs are not fetched.")
    return kind, base64.b64decode(data, validate=True)


def _store_part(part: Message, store: StoreFile) -> str:
    """Stores the file of a content part; returns its path."""
    try:
        return store(*decode_file(part))
    except LimitExceededError as error:
        raise gr.Error(str(error), print_exception=False) from error
