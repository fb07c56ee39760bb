"""``gemma-triton completion``: prints a script with which a shell completes commands, flags and paths."""

from argparse import Namespace
from typing import Final

from gemma_launcher.settings import LauncherSettings

PATHS: Final = ("FILE", "FOLDER", "MODEL", "PATH", "SOURCE", "TARGET")
"""The metavars of arguments that are paths."""


def run(_: LauncherSettings, options: Namespace) -> int:
    """Prints the script."""
    import shtab  # noqa: PLC0415 - it takes long to import, and other commands do not need it

    for parser in options.parsers.values():
        for action in parser.actions:
            if action.metavar in PATHS:
                action.complete = shtab.FILE
    print(shtab.complete(options.parsers[""], shell=options.shell))
    return 0
