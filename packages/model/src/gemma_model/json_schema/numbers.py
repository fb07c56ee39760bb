"""Rewrites the keywords for numbers (JSON Schema 2020-12, Validation 6.2).

Every number that the grammar allows must be valid for the client. The grammar compares decimal digits, but a
client reads a number as the nearest double: it reads ``5.00000000000000000001`` as 5. An exclusive bound is
therefore rewritten into an inclusive bound: the next double inside the range. The grammar library also allows
``0`` and ``-0`` with an exclusive bound of 0, so it never receives an exclusive bound.
"""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from fractions import Fraction
from typing import Any

from gemma_model.json_schema.errors import Path, SchemaError
from gemma_model.json_schema.unenforced_keywords import UnenforcedKeywords

MAX_BOUND = 1e17
"""Largest bound that the library receives: it computes with 64-bit integers."""
MIN_FRACTION = 1e-30
"""Smallest bound above 0 that the library receives."""
MAX_EXACT_INTEGER = 2**53
"""Largest integer up to which all integers are doubles; the library computes with doubles."""
NUMBER_KEYWORDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")

MAX_DIGITS, MAX_EXPONENT = 15, 22
"""The library reads a decimal fraction exactly up to this number of digits and this power of ten."""

Number = int | float


def rewrite_numbers(
    node: dict[str, Any], integer: bool, unenforced: UnenforcedKeywords, path: Path
) -> dict[str, Any]:
    """Rewrite the keywords for numbers into those that the grammar library enforces.

    Args:
        node: the schema.
        integer: the schema allows integers only.
        unenforced: collects the keywords that are not enforced.
        path: of the schema.

    Returns:
        The rewritten keywords.

    Raises:
        SchemaError: a bound is not a number.
        NotEnforceable: the schema is strict, and a bound cannot be enforced.
    """
    values = {keyword: node[keyword] for keyword in NUMBER_KEYWORDS if keyword in node}
    for keyword, value in values.items():
        boolean = isinstance(value, bool)
        if not (isinstance(value, int | float) and (not boolean or keyword.startswith("exclusive"))):
            raise SchemaError(keyword, path, "is not a number")
    low = _tightest_bound(values, "minimum", "exclusiveMinimum", integer, 1)
    high = _tightest_bound(values, "maximum", "exclusiveMaximum", integer, -1)
    low, high = _enforceable_bounds(low, high, unenforced, path)
    bounds = {"minimum": low, "maximum": high}
    kept: dict[str, Any] = {keyword: value for keyword, value in bounds.items() if value is not None}
    if "multipleOf" in values and _is_exact_multiple(values["multipleOf"], unenforced, path):
        kept["multipleOf"] = values["multipleOf"]
    return kept


def _tightest_bound(
    values: dict[str, Any], keyword: str, exclusive_keyword: str, integer: bool, sign: int
) -> Number | None:
    """The inclusive bound; ``sign`` is 1 for a lower bound and -1 for an upper bound."""
    inclusive, exclusive = values.get(keyword), values.get(exclusive_keyword)
    if isinstance(exclusive, bool):  # draft 4
        inclusive, exclusive = (None, inclusive) if exclusive else (inclusive, None)
    bounds = [] if inclusive is None else [_round_inwards(inclusive, integer, sign)]
    if exclusive is not None:
        bounds.append(_next_inside(exclusive, integer, sign))
    return (max if sign > 0 else min)(bounds, default=None)


def _round_inwards(bound: Number, integer: bool, sign: int) -> Number:
    if not integer or math.isinf(bound):
        return bound
    exact = Fraction(bound)
    return math.ceil(exact) if sign > 0 else math.floor(exact)


def _next_inside(bound: Number, integer: bool, sign: int) -> Number:
    if integer and not math.isinf(bound):
        exact = Fraction(bound)
        return math.floor(exact) + 1 if sign > 0 else math.ceil(exact) - 1
    return math.nextafter(_to_double(bound), sign * math.inf)


def _to_double(bound: Number) -> float:
    try:
        return float(bound)
    except OverflowError:
        return math.copysign(math.inf, bound)


def _enforceable_bounds(
    low: Number | None, high: Number | None, unenforced: UnenforcedKeywords, path: Path
) -> tuple[Number | None, Number | None]:
    """Bounds that the library computes correctly; the range is never wider than the given one."""
    if low is not None and high is not None and low > high:
        raise SchemaError("minimum", path, "is above the maximum")
    near_low, near_high = _representable(low, 1), _representable(high, -1)
    beyond = (near_low is not None and near_low > MAX_BOUND) or (
        near_high is not None and near_high < -MAX_BOUND
    )
    crossed = near_low is not None and near_high is not None and near_low > near_high
    if beyond or crossed:
        keyword = "minimum" if low is not None else "maximum"
        unenforced.leave_out(keyword, path, "is too large or too small to be enforced")
        return None, None
    return near_low, near_high


def _representable(bound: Number | None, sign: int) -> Number | None:
    if bound is None or not bound:
        return None if bound is None else 0
    if sign * bound < -MAX_BOUND:
        return -sign * int(MAX_BOUND)
    if abs(bound) < MIN_FRACTION:
        return sign * MIN_FRACTION if sign * bound > 0 else 0
    if isinstance(bound, float) and bound.is_integer():
        bound = int(bound)
    return _to_exact_integer(bound, sign) if isinstance(bound, int) else _to_exact_decimal(bound, sign)


def _to_exact_integer(bound: int, sign: int) -> int:
    """The nearest integer inside the range that is a double."""
    nearest = float(bound)
    outside = sign * int(nearest) < sign * bound
    return int(math.nextafter(nearest, sign * math.inf)) if outside else int(nearest)


def _to_exact_decimal(bound: float, sign: int) -> float:
    """The nearest number inside the range that the library reads exactly; see ``MAX_DIGITS``."""
    inwards = ROUND_CEILING if sign > 0 else ROUND_FLOOR
    with localcontext(prec=MAX_DIGITS, rounding=inwards):
        rounded = +Decimal(repr(bound))
        exponent = rounded.as_tuple().exponent
        assert isinstance(exponent, int)
        if exponent < -MAX_EXPONENT:
            rounded += sign * Decimal(1).scaleb(rounded.adjusted() - MAX_DIGITS + 1)
    return float(rounded)


def _is_exact_multiple(multiple: Number, unenforced: UnenforcedKeywords, path: Path) -> bool:
    """Whether the library reads the multiple exactly."""
    if multiple <= 0 or (isinstance(multiple, float) and not math.isfinite(multiple)):
        raise SchemaError("multipleOf", path, "is not above 0")
    scaled, digits = _to_double(multiple), 0
    while scaled % 1 and digits < 20:
        scaled, digits = scaled * 10.0, digits + 1
    if scaled < 2**32 and Fraction(scaled) / 10**digits == Fraction(repr(multiple)):
        return True
    unenforced.leave_out("multipleOf", path, "has too many digits to be enforced")
    return False


def is_exact(value: Any) -> bool:
    """Whether the library reads a constant exactly, including all values in an array or object."""
    if isinstance(value, dict):
        return all(map(is_exact, value.values()))
    if isinstance(value, list):
        return all(map(is_exact, value))
    if isinstance(value, float):
        decimal = Decimal(repr(value)).as_tuple()
        few = (
            isinstance(decimal.exponent, int)
            and len(decimal.digits) <= MAX_DIGITS
            and abs(decimal.exponent) <= MAX_EXPONENT
        )
        return not value or (few and abs(value) <= MAX_BOUND)
    return not isinstance(value, int) or abs(value) <= MAX_EXACT_INTEGER
