"""Amounts of memory: parsed from and formatted as text."""

from gemma_launcher.errors import CommandError
from gemma_wire.byte_sizes import parse_size

MIB, GIB = 2**20, 2**30


def parse_memory(flag: str, text: str, least: int = 0) -> int:
    """An amount of memory in bytes; see ``gemma_wire.byte_sizes``.

    Args:
        flag: for messages.
        text: its value.
        least: a smaller amount is refused.

    Raises:
        CommandError: it is not an amount of memory, or not a plausible one.
    """
    try:
        size = parse_size(text)
    except ValueError as error:
        raise CommandError(f"{flag}: {error}") from None
    if size < least:
        raise CommandError(f"{flag}: {text} is less than {format_gib(least)}; an example is 8GiB")
    return size


def format_gib(count: float) -> str:
    """Binary units: ``7.98 GiB``, ``272 MiB`` or ``1.5 MiB``."""
    for unit, size in (("GiB", GIB), ("MiB", MIB)):
        if abs(count) >= size:
            return f"{count / size:,.2f} {unit}" if unit == "GiB" else f"{count / size:,.4g} {unit}"
    return f"{count / 1024:,.4g} KiB"


def format_bytes(count: float) -> str:
    """Decimal units: ``15.7 GB``."""
    for unit in ("bytes", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
