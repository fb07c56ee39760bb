"""What was said so far, in the form in which it is sent: OpenAI's messages."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma_launcher.errors import CannotStart

Message = dict[str, Any]
ROLES = ("user", "assistant")


@dataclass
class Conversation:
    """A conversation that grows.

    Args:
        system: what the model is told beforehand; may be empty.
        turns: of the user and the model, in turn.
        pictures: data URIs that go with the next question.
    """

    system: str = ""
    turns: list[Message] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        """What is sent."""
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.turns]

    def ask(self, text: str) -> None:
        """Adds a question, with the pictures that wait."""
        content: Any = text
        if self.pictures:
            shown: list[Message] = [{"type": "image_url", "image_url": {"url": uri}} for uri in self.pictures]
            content = [*shown, *([{"type": "text", "text": text}] if text else [])]
        self.turns.append({"role": "user", "content": content})
        self.pictures = []

    def answer(self, text: str) -> None:
        """Adds what the model said."""
        self.turns.append({"role": "assistant", "content": text})

    def take_back(self) -> None:
        """Forgets the last question; its pictures wait again."""
        content = self.turns.pop()["content"]
        if isinstance(content, list):
            self.pictures = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]

    def clear(self) -> None:
        """Forgets everything but the system prompt."""
        self.turns, self.pictures = [], []

    def save(self, path: Path) -> None:
        """Writes a file that ``load`` reads, and whose messages any OpenAI client can send.

        Raises:
            CannotStart: it cannot be written.
        """
        try:
            path.write_text(
                json.dumps({"messages": self.messages}, indent=1, ensure_ascii=False), encoding="utf-8"
            )
        except OSError as error:
            raise CannotStart(f"{path} cannot be written: {error.strerror}") from None

    def load(self, path: Path) -> None:
        """Takes the place of everything said so far.

        Raises:
            CannotStart: it is no conversation.
        """
        try:
            messages = json.loads(path.read_text(encoding="utf-8"))["messages"]
        except OSError as error:
            raise CannotStart(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise CannotStart(f"{path} is no saved conversation") from None
        system, turns = _split(messages, path)
        self.system, self.turns, self.pictures = system, turns, []


def _split(messages: Any, path: Path) -> tuple[str, list[Message]]:
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        raise CannotStart(f"{path} is no saved conversation")
    told = [message for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    return (str(told[0]["content"]) if told else ""), turns


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and message.get("role") in ("system", *ROLES)
        and isinstance(message.get("content"), str | list)
    )
