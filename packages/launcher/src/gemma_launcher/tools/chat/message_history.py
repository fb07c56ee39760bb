"""The messages of a chat, in OpenAI's format."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma_launcher.errors import CommandError

ChatMessage = dict[str, Any]


@dataclass
class MessageHistory:
    """A growing list of messages.

    Args:
        system: the system prompt; may be empty.
        turns: user and assistant messages.
        pending: images and audio, which will be sent with the next user message, as parts of it.
    """

    system: str = ""
    turns: list[ChatMessage] = field(default_factory=list)
    pending: list[ChatMessage] = field(default_factory=list)

    @property
    def messages(self) -> list[ChatMessage]:
        """All messages, as they are sent."""
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.turns]

    def add_user(self, text: str) -> None:
        """Adds a user message with the pending images and audio."""
        content: Any = text
        if self.pending:
            content = [*self.pending, *([{"type": "text", "text": text}] if text else [])]
        self.turns.append({"role": "user", "content": content})
        self.pending = []

    def add_assistant(self, text: str) -> None:
        """Adds a message of the model."""
        self.turns.append({"role": "assistant", "content": text})

    def undo_user(self) -> None:
        """Removes the last user message; its images and audio are pending again."""
        content = self.turns.pop()["content"]
        if isinstance(content, list):
            self.pending = [part for part in content if part["type"] != "text"]

    def clear(self) -> None:
        """Removes everything but the system prompt."""
        self.turns, self.pending = [], []

    def save(self, path: Path) -> None:
        """Writes the messages to a JSON file.

        Raises:
            CommandError: it cannot be written.
        """
        text = json.dumps({"messages": self.messages}, indent=1, ensure_ascii=False)
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error.strerror}") from None

    def load(self, path: Path) -> None:
        """Replaces everything with the messages of a saved file.

        Raises:
            CommandError: it cannot be read, or is not a saved chat.
        """
        try:
            messages = json.loads(path.read_text(encoding="utf-8"))["messages"]
            valid = isinstance(messages, list) and all(map(_is_message, messages))
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            valid = False
        if not valid:
            raise CommandError(f"{path} is not a saved chat")
        system = [message["content"] for message in messages if message["role"] == "system"]
        self.clear()
        self.system = str(system[0]) if system else ""
        self.turns = [message for message in messages if message["role"] != "system"]


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and message.get("role") in ("system", "user", "assistant")
        and isinstance(message.get("content"), str | list)
    )
