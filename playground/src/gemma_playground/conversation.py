"""A conversation: OpenAI's messages, and how the chat shows them."""

import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Final

from gemma_playground.client import Answer
from gemma_playground.media import Part, Refused, cached, checked, part

Message = dict[str, Any]
QUESTIONS: Final = {"image_url": "What do you see in this image?", "input_audio": "What do you hear?"}
"""What somebody who sends a file without a word wants to know."""


class Conversation:
    """What was said, in the order in which it was; one for each chat of a tab."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self.messages: list[Message] = []

    @property
    def title(self) -> str:
        """The first words."""
        said = (
            each["text"] for message in self.messages for each in _parts(message) if each["type"] == "text"
        )
        return next(said, "Untitled")[:60]

    def say(self, text: str, files: Sequence[str], limit: int) -> None:
        """The user speaks. Raises Refused when there is nothing to say, or a file is not taken."""
        parts = [part(file, limit) for file in files]
        if not text.strip() and not parts:
            raise Refused("Write a message, or add a picture or a sound.")
        words = text.strip() or QUESTIONS[parts[0]["type"]]
        self.messages.append({"role": "user", "content": [*parts, {"type": "text", "text": words}]})

    def reply(self) -> "Reply":
        """The model speaks: a message that grows with its answer."""
        self.messages.append(message := Reply(role="assistant", content=""))
        return message

    def retry(self) -> None:
        """Forgets the last answer."""
        while self.messages and self.messages[-1]["role"] == "assistant":
            self.messages.pop()

    def undo(self) -> dict[str, Any]:
        """Forgets the last question and all that followed; the question's text and files, to ask it anew."""
        asked = [at for at, message in enumerate(self.messages) if message["role"] == "user"]
        parts = _parts(self.messages[asked[-1]]) if asked else []
        del self.messages[asked[-1] if asked else 0 :]
        files = [cached(each) for each in parts if each["type"] != "text"]
        return {"text": "".join(each.get("text", "") for each in parts), "files": files}

    def edit(self, shown_at: int, text: str) -> None:
        """Says something else at this place of the chat, and forgets all that followed; files stay."""
        at = [at for at, message in enumerate(self.messages) for _ in _shown(message)][shown_at]
        files = [each for each in _parts(self.messages[at]) if each["type"] != "text"]
        self.messages[at:] = [{"role": "user", "content": [*files, {"type": "text", "text": text}]}]

    def waiting(self) -> Message | None:
        """The first call of the last answer that nobody has answered."""
        answered = {message.get("tool_call_id") for message in self.messages}
        spoken = [message for message in self.messages if message["role"] != "tool"]
        calls = spoken[-1].get("tool_calls", []) if spoken else []
        return next((call for call in calls if call["id"] not in answered), None)

    def answer_call(self, text: str) -> None:
        """What the called function gave back."""
        if call := self.waiting():
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})

    def to_send(self) -> list[Message]:
        """The messages without what servers refuse: open calls, empty answers, two questions in a row."""
        answered = {message.get("tool_call_id") for message in self.messages}
        sent: list[Message] = []
        for message in self.messages:
            calls = [call for call in message.get("tool_calls", ()) if call["id"] in answered]
            rest = {name: value for name, value in message.items() if name != "tool_calls"}
            if sent and message["role"] == sent[-1]["role"] == "user":
                sent[-1] = {"role": "user", "content": [*sent[-1]["content"], *message["content"]]}
            elif calls or message["content"]:
                sent.append({**rest, "tool_calls": calls} if calls else rest)
        return sent

    def shown(self, error: str = "") -> list[Message]:
        """The chat; an error is told at its end, and is no part of the conversation."""
        failed = [_says("assistant", _literal(error), title="Not answered")] if error else []
        return [*(each for message in self.messages for each in _shown(message)), *failed]

    def restore(self, kept: Any, limit: int) -> None:
        """Becomes a conversation of the browser's storage or of a file. Raises Refused when it is none."""
        try:
            self.messages = [_checked(message, limit) for message in kept["messages"]]
            self.id = str(kept.get("id") or uuid.uuid4().hex)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            told = str(error) if isinstance(error, Refused) else "This is no conversation of a playground."
            raise Refused(told) from error


class Reply(Message):
    """An assistant's message, as far as it has come."""

    def grow(self, answer: Answer) -> None:
        """Says what the answer says by now."""
        self["content"] = answer.text
        if answer.calls:
            self["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in answer.calls.values()
            ]


def _checked(message: Message, limit: int) -> Message:
    new: Message = {"role": message["role"], "content": [checked(each, limit) for each in _parts(message)]}
    if new["role"] not in ("user", "assistant", "tool"):
        raise Refused(f"This conversation has a message of {str(new['role'])[:20]!r}.")
    if new["role"] != "user":
        new["content"] = "".join(each["text"] for each in new["content"])
    if new["role"] == "tool":
        new["tool_call_id"] = str(message["tool_call_id"])
    if calls := message.get("tool_calls"):
        new["tool_calls"] = [
            {
                "id": str(call["id"]),
                "type": "function",
                "function": {name: str(call["function"][name]) for name in ("name", "arguments")},
            }
            for call in calls
        ]
    return new


def _parts(message: Message) -> list[Part]:
    content = message["content"] or []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _shown(message: Message) -> Iterator[Message]:
    if message["role"] == "tool":
        yield _says(
            "assistant", f"```\n{message['content']}\n```", title="Answer", parent_id=message["tool_call_id"]
        )
        return
    for each in _parts(message):
        if each["type"] == "text":
            yield _says(message["role"], each["text"])
        else:
            yield {
                "role": message["role"],
                "content": [{"path": cached(each), "alt_text": "A file that was sent"}],
            }
    for call in message.get("tool_calls", ()):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        yield _says(
            "assistant", f"```json\n{arguments}\n```", title=_literal(f"Call of {name}"), id=call["id"]
        )


def _says(role: str, text: str, **metadata: str) -> Message:
    """Text as a part and not as a string, because Gradio takes the indentation out of strings."""
    return {"role": role, "content": [{"type": "text", "text": text}], "metadata": metadata}


def _literal(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>&#~|])", r"\\\1", text)
