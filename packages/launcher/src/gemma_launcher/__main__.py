"""The command ``gemma-triton``."""

import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from gemma_launcher.cli import COMMANDS, build_parser
from gemma_launcher.console import print_error
from gemma_launcher.errors import CommandError
from gemma_launcher.settings import LauncherSettings, load_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Args:
        arguments: the command line without the program's name; by default that of this process.

    Returns:
        The exit code: 0 on success; 1 on failure, after one line on standard error.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until there are processes to stop
    try:
        options = build_parser().parse_args(arguments)
        given = {name: value for name, value in vars(options).items() if value is not None}
        settings = load_settings(
            {name: given[name] for name in LauncherSettings.model_fields if name in given}
        )
        command = import_module(f"gemma_launcher.{COMMANDS[options.command].module}")
        code: int = command.run(settings, options)
        return code
    except CommandError as error:
        print_error(str(error))
        return 1
    except OSError as error:
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
