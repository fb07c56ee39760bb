"""The command ``gemma-triton``."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from gemma_launcher.cli import COMMANDS, Command, build_parser
from gemma_launcher.console import print_error, print_warning
from gemma_launcher.errors import CommandError
from gemma_launcher.platforms import no_posix
from gemma_launcher.settings import PREFIXES, LauncherSettings, load_settings
from gemma_wire.setting_names import unknown_settings

SIGPIPE_EXIT_CODE = 141
"""That of a program that SIGPIPE ended, as shells report it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Args:
        arguments: the command line without the program's name; by default that of this process.

    Returns:
        The exit code: 0 on success; 1 on failure, after one line on standard error; 2 for a wrong command
        line; 141 if the reader of standard output has ended.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until there are processes to stop
    try:
        options = build_parser().parse_args(arguments)
        command = COMMANDS[options.command]
        _check_system(options.command, command)
        given = {name: value for name, value in vars(options).items() if value is not None}
        settings = load_settings(
            {name: given[name] for name in LauncherSettings.model_fields if name in given}
        )
        code: int = import_module(f"gemma_launcher.{command.module}").run(settings, options)
        sys.stdout.flush()
        return code
    except CommandError as error:
        print_error(str(error))
        return 1
    except BrokenPipeError:
        return _end_without_reader()
    except OSError as error:
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 1
    except KeyboardInterrupt:
        return 0


def _check_system(name: str, command: Command) -> None:
    """Reports variables that no setting reads.

    Raises:
        CommandError: the command does not run on this system.
    """
    if command.needs_posix and (sentence := no_posix(name)):
        raise CommandError(sentence)
    for sentence in () if command.reports_unknown else unknown_settings(os.environ, PREFIXES):
        print_warning(sentence)


def _end_without_reader() -> int:
    """What reads standard output has ended, as in ``| head -1``: an error would help nobody."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is buffered
    return SIGPIPE_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())
