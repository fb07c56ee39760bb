"""Handles the lines of a chat: commands, and messages that are sent to the model."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import openai

from gemma_launcher.errors import CommandError
from gemma_launcher.tools.api_client import to_command_error
from gemma_launcher.tools.chat import images
from gemma_launcher.tools.chat.message_history import MessageHistory
from gemma_launcher.tools.chat.view import View

HELP: Final = {
    "/image PATH": "send an image with the next message; a path in the message does the same",
    "/system [TEXT]": "set the system prompt; without a text: show it",
    "/save FILE": "save the chat",
    "/load FILE": "continue a saved chat",
    "/clear": "forget all messages except the system prompt",
    "/help": "show this list",
    "/exit": "leave, as Ctrl-D does; Ctrl-C stops a response",
}


@dataclass
class ChatSession:
    """A chat with one model.

    Args:
        client: of the server.
        model: its name.
        view: shows the responses.
        options: parameters of each request, such as ``temperature``.
        history: the messages so far.
    """

    client: openai.OpenAI
    model: str
    view: View
    options: Mapping[str, Any] = field(default_factory=dict)
    history: MessageHistory = field(default_factory=MessageHistory)

    def handle_line(self, line: str) -> bool:
        """Runs a command or sends a message; returns whether to continue.

        Raises:
            CommandError: it failed.
        """
        name, _, argument = line.strip().partition(" ")
        if name in ("/exit", "/quit"):
            return False
        if command := self._commands().get(name):
            command(argument.strip())
        elif name.startswith("/") and "/" not in name[1:] and not Path(name).exists():
            raise CommandError(f"there is no command {name}; /help lists them")
        elif line.strip():
            self.send(line)
        return True

    def send(self, line: str) -> None:
        """Sends a message and shows the response; a response stopped by Ctrl-C is kept.

        Raises:
            CommandError: there is no response; the message is removed, its images are pending again.
        """
        text, paths = images.extract_image_paths(line)
        self.history.pending_images += map(images.read_image, paths)
        if not text and self.history.pending_images:
            self.view.note(f"{len(self.history.pending_images)} image(s) will be sent with the next message")
            return
        self.history.add_user(text)
        deltas: list[str] = []
        try:
            self.view.show(self._stream(deltas))
        except KeyboardInterrupt:
            self.view.note("(stopped)")
        except openai.OpenAIError as error:
            self.history.undo_user()
            raise to_command_error(error, str(self.client.base_url)) from None
        if deltas:
            self.history.add_assistant("".join(deltas))
        else:
            self.history.undo_user()

    def _stream(self, deltas: list[str]) -> Iterator[str]:
        messages: Any = self.history.messages
        with self.client.chat.completions.create(
            model=self.model, messages=messages, stream=True, **self.options
        ) as stream:
            for chunk in stream:
                for choice in chunk.choices:
                    if choice.delta.content:
                        deltas.append(choice.delta.content)
                        yield choice.delta.content

    def _commands(self) -> Mapping[str, Callable[[str], None]]:
        return {
            "/image": self._image,
            "/system": self._system,
            "/save": self._save,
            "/load": self._load,
            "/clear": self._clear,
            "/help": self._help,
        }

    def _image(self, argument: str) -> None:
        path = images.parse_path(_required(argument, "/image PATH"))
        self.history.pending_images.append(images.read_image(path))
        self.view.note(f"{path.name} will be sent with the next message")

    def _system(self, argument: str) -> None:
        if argument:
            self.history.system = argument
        self.view.note(f"system prompt: {self.history.system or '(none)'}")

    def _save(self, argument: str) -> None:
        path = images.parse_path(_required(argument, "/save FILE"))
        self.history.save(path)
        self.view.note(f"saved to {path}")

    def _load(self, argument: str) -> None:
        self.history.load(images.parse_path(_required(argument, "/load FILE")))
        self.view.note(f"loaded {len(self.history.turns)} messages")

    def _clear(self, _: str) -> None:
        self.history.clear()
        self.view.note("all messages are forgotten")

    def _help(self, _: str) -> None:
        width = max(map(len, HELP))
        self.view.note("\n".join(f"  {name:<{width}}  {text}" for name, text in HELP.items()))


def _required(argument: str, usage: str) -> str:
    if not argument:
        raise CommandError(f"an argument is missing: {usage}")
    return argument
