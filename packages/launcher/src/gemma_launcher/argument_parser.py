"""An argument parser whose errors show the usage of the subcommand and a suggestion."""

import re
import sys
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Final

_NUMBER: Final = re.compile(r"-[\d.]+")


class SuggestingParser(ArgumentParser):
    """An ``ArgumentParser`` whose errors name the nearest flag.

    Args:
        commands: names of the subcommands; the flags after a subcommand are those of its own parser.
        options: see ``ArgumentParser``.
    """

    def __init__(self, *, commands: Collection[str] = (), **options: Any) -> None:
        self.actions: list[Action] = []
        self._commands = commands
        super().__init__(**options)

    def add_argument(self, *names: Any, **options: Any) -> Action:
        """See ``ArgumentParser``; the action is kept in ``actions``."""
        action = super().add_argument(*names, **options)
        self.actions.append(action)
        return action

    def parse_known_args(  # type: ignore[override]  # argparse has overloads for namespaces of other types
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> tuple[Namespace, list[str]]:
        """See ``ArgumentParser``; unknown arguments are errors here, so that this parser's usage is shown."""
        self._check_flags(sys.argv[1:] if args is None else args)
        parsed, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unexpected argument {rest[0]!r}")
        return parsed, rest

    def _check_flags(self, arguments: Iterable[str]) -> None:
        """Before argparse, which reports a missing flag and not the misspelt one."""
        for argument in arguments:
            is_flag = argument.startswith("-") and len(argument) > 1 and " " not in argument
            if argument == "--":
                break
            if is_flag and not _NUMBER.fullmatch(argument):
                self._check_flag(argument.partition("=")[0])
            elif self._commands:
                self._check_command(argument)
                break

    def _check_flag(self, flag: str) -> None:
        known = [name for action in self.actions for name in action.option_strings]
        short = [name for name in known if len(name) == 2]
        is_known = any(name.startswith(flag) for name in known) or flag[:2] in short
        if not is_known:
            self.error(f"there is no flag {flag}{suggestion(flag, known)}")

    def _check_command(self, name: str) -> None:
        if name not in self._commands:
            self.error(f"there is no command {name!r}{suggestion(name, self._commands)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` with the nearest name; empty if none is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
