"""``gemma-triton chat``: reads messages from a terminal, from a pipe, or one from the command line."""

import os
import sys
from argparse import Namespace
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from rich.console import Console

from gemma_launcher.console import print_error
from gemma_launcher.errors import CommandError
from gemma_launcher.settings import LauncherSettings
from gemma_launcher.tools import api_client
from gemma_launcher.tools.chat import images
from gemma_launcher.tools.chat.audio import read_audio
from gemma_launcher.tools.chat.message_history import MessageHistory
from gemma_launcher.tools.chat.session import HELP, ChatSession
from gemma_launcher.tools.chat.view import JsonView, MarkdownView, PlainView


def run(settings: LauncherSettings, options: Namespace) -> int:
    """Chats until the user leaves or the input ends.

    Raises:
        CommandError: server, model, image or audio are not available; outside a terminal also any later
            failure.
    """
    url = api_client.resolve_base_url(settings)
    attached = [images.read_image(images.parse_path(path)) for path in options.image]
    attached += [read_audio(images.parse_path(path)) for path in options.audio]
    parameters = {"temperature": options.temperature, "max_tokens": options.max_tokens}
    with api_client.create_client(url) as client:
        session = ChatSession(
            client,
            api_client.select_model(client, options.model),
            JsonView() if options.json else PlainView(),
            {name: value for name, value in parameters.items() if value is not None},
            MessageHistory(options.system, pending=attached),
        )
        if options.prompt is not None:
            session.send(options.prompt)
        elif sys.stdin.isatty() and sys.stdout.isatty() and not options.json:
            _run_in_terminal(session, url)
        else:
            for line in sys.stdin:
                if not session.handle_line(line.rstrip("\r\n")):
                    break
    return 0


def _run_in_terminal(session: ChatSession, url: str) -> None:
    """Reads lines with history and completion; Ctrl-C clears the line, Ctrl-D leaves."""
    session.view = MarkdownView(Console())
    session.view.note(f"{session.model} at {url}; /help lists the commands, Ctrl-D leaves")
    commands = WordCompleter([name.split()[0] for name in HELP], sentence=True)
    prompt: PromptSession[str] = PromptSession(
        "> ", history=_input_history(), completer=commands, complete_while_typing=False
    )
    while True:
        try:
            if not session.handle_line(prompt.prompt()):
                return
        except EOFError:
            return
        except KeyboardInterrupt:
            continue
        except CommandError as error:
            print_error(str(error))


def _input_history() -> History:
    """The lines typed so far, in a file that only the user can read; in memory if it cannot be written."""
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "gemma-triton"
    path = state / "chat_history"
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.open("ab").close()
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))
