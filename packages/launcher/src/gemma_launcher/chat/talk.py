"""A line typed by the user: a command, or a question that is sent."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import openai

from gemma_launcher.chat import pictures
from gemma_launcher.chat.conversation import Conversation
from gemma_launcher.chat.view import View
from gemma_launcher.endpoint import explained
from gemma_launcher.errors import CannotStart

HELP: Final = {
    "/image PATH": "show a picture with the next question; a path in the line does as well",
    "/system [TEXT]": "set the system prompt; without a text: show it",
    "/save FILE": "write the conversation",
    "/load FILE": "continue a conversation that was saved",
    "/clear": "forget what was said; the system prompt stays",
    "/help": "this list",
    "/exit": "leave; so does Ctrl-D. Ctrl-C stops an answer",
}


@dataclass
class Talk:
    """One conversation with one model.

    Args:
        client: of the server.
        model: who answers.
        view: where answers go.
        options: of each request, such as ``temperature``.
        conversation: so far.
    """

    client: openai.OpenAI
    model: str
    view: View
    options: Mapping[str, Any] = field(default_factory=dict)
    conversation: Conversation = field(default_factory=Conversation)

    def take(self, line: str) -> bool:
        """Does what a line says; false when it says to leave.

        Raises:
            CannotStart: it cannot be done, in one sentence.
        """
        name, _, argument = line.strip().partition(" ")
        if name in ("/exit", "/quit"):
            return False
        if command := self._commands().get(name):
            command(argument.strip())
        elif name.startswith("/") and "/" not in name[1:] and not Path(name).exists():
            raise CannotStart(f"there is no command {name}; /help lists them")
        elif line.strip():
            self.ask(line)
        return True

    def ask(self, line: str) -> None:
        """Sends a question and shows the answer; what Ctrl-C leaves of one counts as one.

        Raises:
            CannotStart: there is no answer; the question is forgotten, its pictures wait for the next.
        """
        text, paths = pictures.find(line)
        for path in paths:
            self.conversation.pictures.append(pictures.read(path))
        if not text and self.conversation.pictures:
            self.view.note(f"{len(self.conversation.pictures)} picture(s) wait for your question")
            return
        self.conversation.ask(text)
        said: list[str] = []
        try:
            self.view.show(self._pieces(said))
        except KeyboardInterrupt:
            self.view.note("(stopped)")
        except openai.OpenAIError as error:
            self.conversation.take_back()
            raise explained(error, str(self.client.base_url)) from None
        if said:
            self.conversation.answer("".join(said))
        else:
            self.conversation.take_back()

    def _pieces(self, said: list[str]) -> Iterator[str]:
        messages: Any = self.conversation.messages
        with self.client.chat.completions.create(
            model=self.model, messages=messages, stream=True, **self.options
        ) as stream:
            for chunk in stream:
                for choice in chunk.choices:
                    if choice.delta.content:
                        said.append(choice.delta.content)
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
        path = pictures.as_path(_needed(argument, "/image PATH"))
        self.conversation.pictures.append(pictures.read(path))
        self.view.note(f"{path.name} goes with your next question")

    def _system(self, argument: str) -> None:
        if argument:
            self.conversation.system = argument
        self.view.note(f"system prompt: {self.conversation.system or '(none)'}")

    def _save(self, argument: str) -> None:
        path = pictures.as_path(_needed(argument, "/save FILE"))
        self.conversation.save(path)
        self.view.note(f"saved in {path}")

    def _load(self, argument: str) -> None:
        self.conversation.load(pictures.as_path(_needed(argument, "/load FILE")))
        self.view.note(f"loaded, {len(self.conversation.turns)} messages")

    def _clear(self, _: str) -> None:
        self.conversation.clear()
        self.view.note("forgotten")

    def _help(self, _: str) -> None:
        width = max(map(len, HELP))
        self.view.note("\n".join(f"  {name:<{width}}  {text}" for name, text in HELP.items()))


def _needed(argument: str, usage: str) -> str:
    if not argument:
        raise CannotStart(f"something is missing: {usage}")
    return argument
