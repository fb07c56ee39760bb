"""The command ``gemma-triton``."""

import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gemma_launcher.console import fail
from gemma_launcher.errors import CannotStart
from gemma_launcher.flags import make_parser

if TYPE_CHECKING:
    from gemma_launcher.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: without the program's name; those of this process when none are given.

    Returns:
        The exit code: 0, or 1 after one sentence on standard error.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until there is something to stop
    try:
        return _run(make_parser().parse_args(arguments))
    except CannotStart as error:
        fail(str(error))
        return 1
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 1
    except KeyboardInterrupt:
        return 0


def _run(options: Namespace) -> int:
    # Imported late: --help and --version need none of it, and each command only its own part.
    from gemma_launcher.settings import Settings, read  # noqa: PLC0415

    given = {name: value for name, value in vars(options).items() if value is not None}
    settings = read({name: value for name, value in given.items() if name in Settings.model_fields})
    match options.command:
        case "serve":
            from gemma_launcher import serve  # noqa: PLC0415

            return serve.run(settings)
        case "doctor":
            from gemma_launcher import doctor  # noqa: PLC0415

            return doctor.run(settings)
        case "plan":
            from gemma_launcher.plan import command as plan  # noqa: PLC0415

            return plan.run(settings, options)
        case "reload":
            from gemma_launcher import reload  # noqa: PLC0415

            return reload.run(settings, options)
        case _:
            return _run_client(settings, options)


def _run_client(settings: "Settings", options: Namespace) -> int:
    """A command that talks to any OpenAI-compatible server."""
    match options.command:
        case "chat":
            from gemma_launcher.chat import command as chat  # noqa: PLC0415

            return chat.run(settings, options)
        case "bench":
            from gemma_launcher.bench import command as bench  # noqa: PLC0415

            return bench.run(settings, options)
        case _:
            from gemma_launcher import playground  # noqa: PLC0415

            return playground.run(settings, options)


if __name__ == "__main__":
    sys.exit(main())
