"""The launcher's one error: something that people must put right before serving can go on."""


class CannotStart(Exception):
    """Serving is impossible; the message is one sentence that says what to do. Exit code 1."""
