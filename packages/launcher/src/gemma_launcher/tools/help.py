"""``gemma-triton help``: shows the help of the program or of one command."""

from argparse import Namespace

from gemma_launcher.settings import LauncherSettings


def run(_: LauncherSettings, options: Namespace) -> int:
    """Prints the help."""
    options.parsers[options.topic].print_help()
    return 0
