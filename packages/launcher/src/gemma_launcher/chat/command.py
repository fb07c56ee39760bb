"""``gemma-triton chat``: reads lines from a terminal, from a pipe, or takes one from the command line."""

import os
import sys
from argparse import Namespace
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from rich.console import Console

from gemma_launcher import endpoint
from gemma_launcher.chat import pictures
from gemma_launcher.chat.conversation import Conversation
from gemma_launcher.chat.talk import HELP, Talk
from gemma_launcher.chat.view import MarkdownView, PlainView
from gemma_launcher.console import fail
from gemma_launcher.errors import CannotStart
from gemma_launcher.settings import Settings


def run(settings: Settings, options: Namespace) -> int:
    """Talks until the user leaves, or until the lines end.

    Raises:
        CannotStart: no server, no such model, no such picture; outside a terminal also any later trouble.
    """
    url = endpoint.base_url(settings, options.base_url)
    shown = [pictures.read(pictures.as_path(path)) for path in options.image]
    wishes = {"temperature": options.temperature, "max_tokens": options.max_tokens}
    with endpoint.connect(url) as client:
        talk = Talk(
            client,
            endpoint.pick_model(client, options.model),
            PlainView(),
            {name: value for name, value in wishes.items() if value is not None},
            Conversation(options.system, pictures=shown),
        )
        if options.question is not None:
            talk.ask(options.question)
        elif sys.stdin.isatty() and sys.stdout.isatty():
            _in_terminal(talk, url)
        else:
            _from_pipe(talk)
    return 0


def _from_pipe(talk: Talk) -> None:
    for line in sys.stdin:
        if not talk.take(line.rstrip("\r\n")):
            return


def _in_terminal(talk: Talk, url: str) -> None:
    """Reads lines with history and completion; Ctrl-C empties the line, Ctrl-D leaves."""
    talk.view = MarkdownView(Console())
    talk.view.note(f"{talk.model} at {url}; /help lists the commands, Ctrl-D leaves")
    commands = WordCompleter([name.split()[0] for name in HELP], sentence=True)
    session: PromptSession[str] = PromptSession(
        "> ", history=_history(), completer=commands, complete_while_typing=False
    )
    while True:
        try:
            if not talk.take(session.prompt()):
                return
        except EOFError:
            return
        except KeyboardInterrupt:
            continue
        except CannotStart as error:
            fail(str(error))


def _history() -> History:
    """The lines typed so far, in a file that only the user may read; in memory where there can be none."""
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "gemma-triton"
    path = state / "chat_history"
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.open("ab").close()
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))
