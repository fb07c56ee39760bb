"""Handles the lines of a chat: commands, and messages that are sent to the model."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import openai

from gemma_launcher.errors import CommandError
from gemma_launcher.tools.api_client import to_command_error
from gemma_launcher.tools.chat import images
from gemma_launcher.tools.chat.audio import read_audio
from gemma_launcher.tools.chat.message_history import MessageHistory
from gemma_launcher.tools.chat.token_count import count_tokens
from gemma_launcher.tools.chat.view import View

HELP: Final = {
    "/image PATH": "send an image with the next message; a path in the message does the same",
    "/audio PATH": "send an audio file with the next message",
    "/system [TEXT]": "set the system prompt; without a text: show it",
    "/save FILE": "save the chat",
    "/load FILE": "continue a saved chat",
    "/tokens": "show the tokens of the chat and of the last response",
    "/clear": "forget all messages except the system prompt",
    "/help": "show this list",
    "/exit": "leave, as Ctrl-D does; Ctrl-C stops a response",
}


@dataclass
class Response:
    """A response as far as it was received.

    Args:
        content: its text, in pieces.
        finish_reason: why it ended; ``None`` if it was stopped.
        usage: the numbers of tokens, if the server sent them.
        seconds: from the request to its end.
    """

    content: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    seconds: float = 0.0


@dataclass
class ChatSession:
    """A chat with one model.

    Args:
        client: of the server.
        model: its name.
        view: shows the responses.
        options: parameters of each request, such as ``temperature``.
        history: the messages so far.
        last: the last response.
    """

    client: openai.OpenAI
    model: str
    view: View
    options: Mapping[str, Any] = field(default_factory=dict)
    history: MessageHistory = field(default_factory=MessageHistory)
    last: Response = field(default_factory=Response)

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
            CommandError: there is no response; the message is removed, its files are pending again.
        """
        text, paths = images.extract_image_paths(line)
        self.history.pending += map(images.read_image, paths)
        if not text and self.history.pending:
            self.view.note(f"{len(self.history.pending)} file(s) will be sent with the next message")
            return
        self.history.add_user(text)
        started, response = time.monotonic(), Response()
        try:
            self.view.show(self._stream(response))
        except KeyboardInterrupt:
            self.view.note("(stopped)")
        except openai.OpenAIError as error:
            self.history.undo_user()
            raise to_command_error(error, str(self.client.base_url)) from None
        response.seconds = time.monotonic() - started
        if response.content:
            self.last = response
            self.history.add_assistant("".join(response.content))
        else:
            self.history.undo_user()
        self.view.finish(self._as_json(response))

    def _stream(self, response: Response) -> Iterator[str]:
        messages: Any = self.history.messages
        with self.client.chat.completions.create(
            model=self.model,
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
            **self.options,
        ) as stream:
            for chunk in stream:
                response.usage = chunk.usage.model_dump(exclude_none=True) if chunk.usage else response.usage
                for choice in chunk.choices:
                    response.finish_reason = choice.finish_reason or response.finish_reason
                    if choice.delta.content:
                        response.content.append(choice.delta.content)
                        yield choice.delta.content

    def _as_json(self, response: Response) -> dict[str, Any]:
        return {
            "model": self.model,
            "content": "".join(response.content),
            "finish_reason": response.finish_reason,
            "usage": response.usage,
            "seconds": round(response.seconds, 3),
        }

    def _commands(self) -> Mapping[str, Callable[[str], None]]:
        return {
            "/image": self._image,
            "/audio": self._audio,
            "/system": self._system,
            "/save": self._save,
            "/load": self._load,
            "/tokens": self._tokens,
            "/clear": self._clear,
            "/help": self._help,
        }

    def _image(self, argument: str) -> None:
        path = images.parse_path(_required(argument, "/image PATH"))
        self.history.pending.append(images.read_image(path))
        self.view.note(f"{path.name} will be sent with the next message")

    def _audio(self, argument: str) -> None:
        path = images.parse_path(_required(argument, "/audio PATH"))
        self.history.pending.append(read_audio(path))
        self.view.note(f"{path.name} will be sent with the next message")

    def _tokens(self, _: str) -> None:
        counted = (
            count_tokens(self.client, self.model, self.history.messages) if self.history.messages else ""
        )
        usage = self.last.usage
        lines = [
            counted or ("this server does not count tokens" if self.history.messages else "no messages yet")
        ]
        if usage:
            prompt, new = usage["prompt_tokens"], usage["completion_tokens"]
            speed = f", {new / self.last.seconds:,.1f} tokens/s" if self.last.seconds else ""
            lines.append(f"last response: {new:,} tokens for a prompt of {prompt:,}{speed}")
        self.view.note("\n".join(lines))

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
