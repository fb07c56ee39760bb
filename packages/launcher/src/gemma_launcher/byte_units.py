"""Amounts of memory: parsed from and formatted as text."""

import re
from typing import Final

from gemma_launcher.errors import CommandError

MIB, GIB = 2**20, 2**30
_UNITS: Final = {
    "": 1,
    **{f"{prefix}{i}": 2 ** (10 * power) for power, prefix in enumerate("KMGT", start=1) for i in ("iB", "")},
    **{f"{prefix}B": 10 ** (3 * power) for power, prefix in enumerate("KMGT", start=1)},
}
_AMOUNT = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)\s*(?P<unit>[KMGT]?(i?B)?)")


def parse_bytes(text: str) -> int:
    """Parses ``8GiB`` or ``8G`` (8 × 2³⁰ bytes), ``8GB`` (8 × 10⁹ bytes), or a plain number of bytes.

    Raises:
        CommandError: it is not an amount of memory.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or match["unit"] not in _UNITS:
        raise CommandError(
            f"{text!r} is not an amount of memory; use 8GiB, 8G (the same) or 8GB (10⁹ bytes each)"
        )
    unit: int = _UNITS[match["unit"]]
    return round(float(match["number"]) * unit)


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
