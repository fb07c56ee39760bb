"""A conversation: OpenAI's messages, the files in them, and how the chat shows both."""

import base64
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

import gradio as gr
from gradio.processing_utils import save_base64_to_cache
from gradio.utils import get_upload_folder

Message = dict[str, Any]
PICTURES: Final = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff")
SOUNDS: Final = ("wav", "mp3", "flac", "ogg")
SPEAKERS: Final = {"user": "user", "assistant": "assistant", "tool": "assistant"}
"""Whose side of the chat a message is shown on."""
QUESTIONS: Final = {"image_url": "What do you see in this image?", "input_audio": "What do you hear?"}
"""What somebody who sends a file without a word wants to know."""
_saved: Final = lru_cache(16)(save_base64_to_cache)
"""A growing answer shows the same pictures again and again."""


@dataclass
class Conversation:
    """What was said, in the order in which it was; one for each chat of a tab."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    messages: list[Message] = field(default_factory=list)

    @classmethod
    def of(cls, kept: Any) -> Self:
        """One of the browser's storage or of a file. Raises gr.Error when it is none that can be shown."""
        try:
            talk = cls(str(kept.get("id") or uuid.uuid4().hex), list(kept["messages"]))
            talk.shown()
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise gr.Error("This is no conversation of a playground.", print_exception=False) from error
        return talk

    def say(self, message: Message) -> None:
        """The user speaks, or tells what a called function gave back. Raises gr.Error for nothing."""
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

    def cut(self, shown: int | None = None) -> Message:
        """Forgets the last question, of so many messages of the chat, and all after it; gives it back."""
        places = [at for at, message in enumerate(self.messages) for _ in _shown(message)]
        at = max((at for at in places[:shown] if self.messages[at]["role"] == "user"), default=0)
        parts = [part for message in self.messages[at : at + 1] for part in _parts(message)]
        del self.messages[at:]
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        return {"text": text, "files": [_file(part) for part in parts if part["type"] != "text"]}

    def waiting(self) -> Message | None:
        """The first call of the last answer that nobody has answered."""
        answered = {message.get("tool_call_id") for message in self.messages}
        spoken = [message for message in self.messages if message["role"] != "tool"]
        calls = spoken[-1].get("tool_calls", ()) if spoken else ()
        return next((call for call in calls if call["id"] not in answered), None)

    def shown(self, error: str = "") -> list[Message]:
        """The chat; an error is told at its end, and is no part of the conversation."""
        failed = [_says("assistant", _literal(error), title="Not answered")] if error else []
        return [*(each for message in self.messages for each in _shown(message)), *failed]


def _parts(message: Message) -> list[Message]:
    content = message["content"] or []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _shown(message: Message) -> Iterator[Message]:
    """A message of the chat for each part and each call; any error, when this is no message."""
    speaker, fence = SPEAKERS[message["role"]], "```json\n{}\n```"
    if message["role"] == "tool":
        gave, call_id = fence.format(message["content"]), message["tool_call_id"]
        yield _says(speaker, gave, title="Answer", parent_id=call_id)
        return
    for part in _parts(message):
        if part["type"] == "text":
            yield _says(speaker, part["text"])
        else:
            yield {"role": speaker, "content": [{"path": _file(part), "alt_text": "A file that was sent"}]}
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
    data = base64.b64encode(Path(path).read_bytes()).decode()
    kind = Path(path).suffix[1:].lower().replace("jpg", "jpeg")
    if kind in SOUNDS:
        sound = {"data": data, "format": "mp3" if kind == "mp3" else "wav"}
        return {"type": "input_audio", "input_audio": sound}
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}


def _file(part: Message) -> str:
    """The part in Gradio's cache, where the page may show it from; any error, when it is not in the part."""
    sound = part["input_audio"] if part["type"] == "input_audio" else None
    url = f"data:audio/{sound['format']};base64,{sound['data']}" if sound else part["image_url"]["url"]
    kind = url.partition(";base64,")[0].partition("/")[2]
    if kind not in (*PICTURES, *SOUNDS):
        raise ValueError("Addresses are not fetched.")
    return _saved(url, get_upload_folder(), f"file.{kind}")
