"""A conversation: OpenAI's messages, the files in them, and how the chat shows both."""

import base64
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import gradio as gr

from gemma_playground.files import MEDIA_TYPES, LimitExceededError
from gemma_playground.settings import MIB

Message = dict[str, Any]
Store = Callable[[str, bytes], str]
"""Stores a file of this kind (a suffix) and content for the session that is served; returns its path."""
SOUNDS: Final = tuple(kind for kind, type_ in MEDIA_TYPES.items() if type_.startswith("audio/"))
SPEAKERS: Final = {"user": "user", "assistant": "assistant", "tool": "assistant"}
"""Whose side of the chat a message is shown on."""
QUESTIONS: Final = {"image_url": "What do you see in this image?", "input_audio": "What do you hear?"}
"""What somebody who sends a file without a word wants to know."""
MAX_MESSAGES: Final = 10_000
MAX_BYTES: Final = 64 * MIB
"""Of a conversation, its files as base64; servers take no larger requests."""
MAX_PARTS: Final = 1_000
"""Of a message; tool calls are limited to the same number."""


@dataclass
class Conversation:
    """What was said, in the order in which it was; one for each chat of a tab."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    messages: list[Message] = field(default_factory=list)
    size: int = field(default=0, compare=False)
    """Bytes, about."""

    @classmethod
    def of(cls, kept: Any) -> Self:
        """One of the browser's storage or of a file. Raises gr.Error when it is none that can be shown."""
        try:
            clean = cleaned(kept)
            for file in files(clean["messages"]):
                content_of(file)
        except ValueError as error:
            raise gr.Error("This is no conversation of a playground.", print_exception=False) from error
        return cls(clean["id"] or uuid.uuid4().hex, clean["messages"], size_of(clean["messages"]))

    def say(self, message: Message) -> None:
        """The user speaks, or tells what a called function gave back. Raises gr.Error for nothing."""
        self._check_size(message)
        text, parts = message["text"].strip(), [_part(file) for file in message["files"]]
        if not text and not parts:
            raise gr.Error("Write a message, or add a picture or a sound.", print_exception=False)
        if (call := self.waiting()) and not parts:
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
            return
        parts.append({"type": "text", "text": text or QUESTIONS[parts[0]["type"]]})
        if self.messages and self.messages[-1]["role"] == "user":  # Nobody answered, and both are asked.
            parts = [*_parts(self.messages.pop()), *parts]
        self.messages.append({"role": "user", "content": parts})
        self.size = size_of(self.messages)

    def _check_size(self, message: Message) -> None:
        sizes = [Path(file).stat().st_size for file in message["files"] if Path(file).exists()]
        if self.size + len(message["text"]) + sum(sizes) * 4 // 3 > MAX_BYTES:
            sentence = f"A conversation may have {MAX_BYTES // MIB} MB with its files. Begin a new one."
            raise gr.Error(sentence, print_exception=False)

    def cut(self, store: Store, shown: int | None = None) -> Message:
        """Forgets the last question, of so many messages of the chat, and all after it; gives it back."""
        places = [at for at, message in enumerate(self.messages) for _ in range(_height(message))]
        at = max((at for at in places[:shown] if self.messages[at]["role"] == "user"), default=0)
        parts = [part for message in self.messages[at : at + 1] for part in _parts(message)]
        found = [_file(part, store) for part in parts if part["type"] != "text"]
        del self.messages[at:]
        self.size = size_of(self.messages)
        return {"text": "\n".join(part["text"] for part in parts if part["type"] == "text"), "files": found}

    def waiting(self) -> Message | None:
        """The first call of the last answer that nobody has answered."""
        answered = {message.get("tool_call_id") for message in self.messages}
        spoken = [message for message in self.messages if message["role"] != "tool"]
        calls = spoken[-1].get("tool_calls", ()) if spoken else ()
        return next((call for call in calls if call["id"] not in answered), None)

    def shown(self, store: Store) -> list[Message]:
        """The chat. Raises gr.Error when there is no room for its files."""
        return shown(self.messages, store)


def shown(messages: Iterable[Message], store: Store, error: str = "") -> list[Message]:
    """Messages as the chat shows them; an error is told at the end, and is no part of the conversation."""
    failed = [_says("assistant", _literal(error), title="Not answered")] if error else []
    return [*(each for message in messages for each in _shown(message, store)), *failed]


def cleaned(kept: Any) -> Message:
    """A conversation from anywhere: what is known of it, everything else left out. Raises ValueError."""
    try:
        settings = kept.get("settings") or {}
        named = {str(name): str(value) for name, value in settings.items() if value}
        if len(messages := kept["messages"]) > MAX_MESSAGES or not isinstance(messages, list):
            raise ValueError(f"More than {MAX_MESSAGES} messages.")
        said = [_cleaned(message) for message in messages]
        return {"id": _string(kept.get("id") or ""), "settings": named, "messages": said}
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("This is no conversation.") from error


def _cleaned(message: Message) -> Message:
    role, content = _string(message["role"]), message["content"]
    if role not in SPEAKERS:
        raise ValueError(f"Nobody speaks as {role[:40]!r}.")
    if role == "tool":
        return {"role": role, "tool_call_id": _string(message["tool_call_id"]), "content": _string(content)}
    if isinstance(content, list):
        content = [_cleaned_part(part) for part in _few(content)]
    elif content is not None:
        content = _string(content)
    calls = [_cleaned_call(call) for call in _few(message.get("tool_calls") or [])]
    return {"role": role, "content": content} | ({"tool_calls": calls} if calls else {})


def _cleaned_part(part: Message) -> Message:
    kind = part["type"]
    if kind == "text":
        return {"type": kind, "text": _string(part["text"])}
    names = {"image_url": ("url",), "input_audio": ("data", "format")}[kind]
    return {"type": kind, kind: {name: _string(part[kind][name]) for name in names}}


def _cleaned_call(call: Message) -> Message:
    function = {name: _string(call["function"][name]) for name in ("name", "arguments")}
    return {"id": _string(call["id"]), "type": "function", "function": function}


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"Not a string: {type(value).__name__}.")
    return value


def _few(items: Any) -> list[Any]:
    if not isinstance(items, list) or len(items) > MAX_PARTS:
        raise TypeError(f"Not a list of at most {MAX_PARTS} items.")
    return items


def size_of(messages: Iterable[Message]) -> int:
    """Bytes of the texts and files in it, about."""
    return sum(len(text) for message in messages for text in _texts(message))


def _texts(message: Message) -> Iterator[str]:
    """All that is long in a message."""
    for part in _parts(message):
        yield part["text"] if part["type"] == "text" else max(part[part["type"]].values(), key=len)
    yield from (call["function"]["arguments"] for call in message.get("tool_calls", ()))


def files(messages: Iterable[Message]) -> Iterator[Message]:
    """The parts that are no text."""
    return (part for each in messages for part in _parts(each) if part["type"] != "text")


def _height(message: Message) -> int:
    """How many messages of the chat show it."""
    if message["role"] == "tool":
        return 1
    return len(_parts(message)) + len(message.get("tool_calls", ()))


def _parts(message: Message) -> list[Message]:
    content = message["content"] or []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _shown(message: Message, store: Store) -> Iterator[Message]:
    """A message of the chat for each part and each call."""
    speaker, fence = SPEAKERS[message["role"]], "```json\n{}\n```"
    if message["role"] == "tool":
        gave, call_id = fence.format(message["content"]), message["tool_call_id"]
        yield _says(speaker, gave, title="Answer", parent_id=call_id)
        return
    for part in _parts(message):
        if part["type"] == "text":
            yield _says(speaker, part["text"])
        else:
            yield {
                "role": speaker,
                "content": [{"path": _file(part, store), "alt_text": "A file that was sent"}],
            }
    for call in message.get("tool_calls", ()):
        title, log = _literal(f"Call of {call['function']['name']}"), "your next message is its answer"
        yield _says(speaker, fence.format(call["function"]["arguments"]), title=title, id=call["id"], log=log)


def _says(role: str, text: str, **metadata: str) -> Message:
    """Text as a part and not as a string, because Gradio takes the indentation out of strings."""
    return {"role": role, "content": [{"type": "text", "text": str(text)}], "metadata": metadata}


def _literal(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>&#~|])", r"\\\1", text)


def _part(path: str) -> Message:
    """A file as OpenAI's content part; FLAC and Ogg have no name there, but say themselves what they are."""
    try:
        data = base64.b64encode(Path(path).read_bytes()).decode()
    except OSError as error:
        raise gr.Error("A file is no longer here. Add it again.", print_exception=False) from error
    kind = Path(path).suffix[1:].lower()
    if kind in SOUNDS:
        sound = {"data": data, "format": "mp3" if kind == "mp3" else "wav"}
        return {"type": "input_audio", "input_audio": sound}
    return {"type": "image_url", "image_url": {"url": f"data:{MEDIA_TYPES[kind]};base64,{data}"}}


def content_of(part: Message) -> tuple[str, bytes]:
    """The kind and the bytes of a part that is a file. Raises ValueError when they are not in the part."""
    sound = part["input_audio"] if part["type"] == "input_audio" else None
    url = f"data:audio/{sound['format']};base64,{sound['data']}" if sound else part["image_url"]["url"]
    head, marked, data = url.partition(";base64,")
    kind = head.removeprefix("data:").partition("/")[2]
    if not marked or not head.startswith("data:") or kind not in MEDIA_TYPES:
        raise ValueError("Addresses are not fetched.")
    return kind, base64.b64decode(data, validate=True)


def _file(part: Message, store: Store) -> str:
    """The path of the part's file, which the page may show."""
    try:
        return store(*content_of(part))
    except LimitExceededError as error:
        raise gr.Error(str(error), print_exception=False) from error
