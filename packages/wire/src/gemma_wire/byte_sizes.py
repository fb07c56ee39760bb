"""Sizes in bytes as users write them: on the command line, in the environment, in ``config.pbtxt``."""

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

MAX_SIZE: Final = 2**50
"""A larger size is a mistake."""

MIN_BARE_NUMBER: Final = 1024
"""A smaller number without a unit is a mistake: who writes 8 means 8GiB."""

_UNITS: Final[dict[str, int]] = {
    "b": 1,
    **{f"{prefix}{i}": 2 ** (10 * power) for power, prefix in enumerate("kmgt", 1) for i in ("ib", "i", "")},
    **{f"{prefix}b": 10 ** (3 * power) for power, prefix in enumerate("kmgt", 1)},
}
_SIZE: Final = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)\s*(?P<unit>[a-z]*)")


def parse_size(text: str) -> int:
    """Parses ``8GiB`` or ``8G`` (8 × 2³⁰ bytes), ``8GB`` (8 × 10⁹ bytes), ``8B``, or a number of bytes.

    Raises:
        ValueError: it is not a size, or not a plausible one.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or match["unit"] not in {"", *_UNITS}:
        raise ValueError(f"{text[:40]!r} is not a size; use 8GiB, 8G (the same) or 8GB (10⁹ bytes each)")
    number, unit = match["number"], match["unit"]
    size = float(number) * _UNITS.get(unit, 1)
    if not unit and 0 < size < MIN_BARE_NUMBER:
        raise ValueError(
            f"{number} has no unit and would be {size:.0f} bytes; use {number}GiB or {number}MiB"
        )
    if size > MAX_SIZE:
        raise ValueError(f"{text[:40]} is more than 1024 TiB")
    return round(size)


def _parse(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


ByteSize = Annotated[int, BeforeValidator(_parse)]
"""The type of a setting that is a size: a number, or a text for ``parse_size``."""
