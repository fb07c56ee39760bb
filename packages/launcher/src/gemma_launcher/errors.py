"""The launcher's exception."""


class CommandError(Exception):
    """A command cannot continue. The message is one sentence that says what to do; the exit code is 1."""
