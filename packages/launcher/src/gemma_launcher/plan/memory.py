"""Amounts of memory, as people write and read them."""

import re
from typing import Final

from gemma_launcher.errors import CannotStart

MIB, GIB = 2**20, 2**30
_UNITS: Final = {
    "": 1,
    **{f"{prefix}iB": 2 ** (10 * power) for power, prefix in enumerate("KMGT", start=1)},
    **{f"{prefix}B": 10 ** (3 * power) for power, prefix in enumerate("KMGT", start=1)},
    **{prefix: 2 ** (10 * power) for power, prefix in enumerate("KMGT", start=1)},
}
_AMOUNT = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)\s*(?P<unit>[KMGT]?(i?B)?)")


def parse(text: str) -> int:
    """``8GiB`` and ``8G`` are 8 × 2³⁰ bytes, ``8GB`` is 8 × 10⁹, a bare number is bytes.

    Raises:
        CannotStart: it is no amount of memory.
    """
    match = _AMOUNT.fullmatch(text.strip())
    if match is None or match["unit"] not in _UNITS:
        raise CannotStart(
            f"{text!r} is no amount of memory; write 8GiB, 8G (the same) or 8GB (10⁹ bytes each)"
        )
    unit: int = _UNITS[match["unit"]]
    return round(float(match["number"]) * unit)


def in_gib(count: float) -> str:
    """``7.98 GiB``, ``272 MiB`` or ``1.5 MiB``."""
    for unit, size in (("GiB", GIB), ("MiB", MIB)):
        if abs(count) >= size:
            return f"{count / size:,.2f} {unit}" if unit == "GiB" else f"{count / size:,.4g} {unit}"
    return f"{count / 1024:,.4g} KiB"
