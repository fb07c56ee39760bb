"""Bounds of numbers, rewritten so that every text the grammar allows is within them.

The grammar works on decimal digits, a client on the nearest double: ``5.00000000000000000001`` is 5 to a
client. So an exclusive bound becomes a number beyond it, inclusive. The grammar library also takes ``0`` and
``-0`` as inside an exclusive bound of 0; no exclusive bound is given to it.
"""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from fractions import Fraction
from typing import Any

from gemma_model.json_schema.errors import Path, SchemaError
from gemma_model.json_schema.unenforced_keywords import UnenforcedKeywords

LARGEST = 1e17
"""A larger bound is not passed on: the library computes with 64-bit integers."""
SMALLEST = 1e-30
"""Of the numbers around 0 that a bound tells apart, as a decimal fraction."""
EXACT = 2**53
"""Larger integers are not all doubles, as which the library computes with them."""
BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")

DIGITS, POWER = 15, 22
"""Decimal fractions with no more digits, and no larger power of ten, are read exactly."""

Number = int | float


def rewrite_numbers(
    node: dict[str, Any], integer: bool, unenforced: UnenforcedKeywords, path: Path
) -> dict[str, Any]:
    """The keywords about numbers, as the library may have them.

    Args:
        node: the schema.
        integer: whether its numbers are integers only.
        unenforced: is told what is left out.
        path: of the schema.

    Raises:
        SchemaError: about a bound that is no number.
        NotEnforceable: in a strict schema, about one that cannot be enforced.
    """
    given = {word: node[word] for word in BOUNDS if word in node}
    for word, value in given.items():
        boolean = isinstance(value, bool)
        if not (isinstance(value, int | float) and (not boolean or word.startswith("exclusive"))):
            raise SchemaError(word, path, "is not a number")
    low = _tightest(given, "minimum", "exclusiveMinimum", integer, 1)
    high = _tightest(given, "maximum", "exclusiveMaximum", integer, -1)
    low, high = _within_reach(low, high, unenforced, path)
    bounds = {"minimum": low, "maximum": high}
    kept: dict[str, Any] = {word: value for word, value in bounds.items() if value is not None}
    if "multipleOf" in given and _is_decimal(given["multipleOf"], unenforced, path):
        kept["multipleOf"] = given["multipleOf"]
    return kept


def _tightest(given: dict[str, Any], word: str, exclusive: str, integer: bool, sign: int) -> Number | None:
    """The inclusive bound; ``sign`` is 1 for a lower and -1 for an upper one."""
    plain, open_ = given.get(word), given.get(exclusive)
    if isinstance(open_, bool):  # as draft 4 has it
        plain, open_ = (None, plain) if open_ else (plain, None)
    bounds = [] if plain is None else [_inwards(plain, integer, sign)]
    if open_ is not None:
        bounds.append(_next(open_, integer, sign))
    return (max if sign > 0 else min)(bounds, default=None)


def _inwards(bound: Number, integer: bool, sign: int) -> Number:
    if not integer or math.isinf(bound):
        return bound
    exact = Fraction(bound)
    return math.ceil(exact) if sign > 0 else math.floor(exact)


def _next(bound: Number, integer: bool, sign: int) -> Number:
    if integer and not math.isinf(bound):
        exact = Fraction(bound)
        return math.floor(exact) + 1 if sign > 0 else math.ceil(exact) - 1
    return math.nextafter(_as_double(bound), sign * math.inf)


def _as_double(bound: Number) -> float:
    try:
        return float(bound)
    except OverflowError:
        return math.copysign(math.inf, bound)


def _within_reach(
    low: Number | None, high: Number | None, unenforced: UnenforcedKeywords, path: Path
) -> tuple[Number | None, Number | None]:
    """Bounds that the library computes rightly, never wider than those given."""
    if low is not None and high is not None and low > high:
        raise SchemaError("minimum", path, "is above the maximum")
    near_low, near_high = _nearer(low, 1), _nearer(high, -1)
    beyond = (near_low is not None and near_low > LARGEST) or (near_high is not None and near_high < -LARGEST)
    crossed = near_low is not None and near_high is not None and near_low > near_high
    if beyond or crossed:
        word = "minimum" if low is not None else "maximum"
        unenforced.leave_out(word, path, "is too large or too small to be enforced")
        return None, None
    return near_low, near_high


def _nearer(bound: Number | None, sign: int) -> Number | None:
    if bound is None or not bound:
        return None if bound is None else 0
    if sign * bound < -LARGEST:
        return -sign * int(LARGEST)
    if abs(bound) < SMALLEST:
        return sign * SMALLEST if sign * bound > 0 else 0
    if isinstance(bound, float) and bound.is_integer():
        bound = int(bound)
    return _as_integer(bound, sign) if isinstance(bound, int) else _as_decimal(bound, sign)


def _as_integer(bound: int, sign: int) -> int:
    """The next integer inwards that is a double."""
    nearest = float(bound)
    outside = sign * int(nearest) < sign * bound
    return int(math.nextafter(nearest, sign * math.inf)) if outside else int(nearest)


def _as_decimal(bound: float, sign: int) -> float:
    """The next number inwards that the library reads exactly: it reads few digits so, others nearly."""
    inwards = ROUND_CEILING if sign > 0 else ROUND_FLOOR
    with localcontext(prec=DIGITS, rounding=inwards):
        short = +Decimal(repr(bound))
        exponent = short.as_tuple().exponent
        assert isinstance(exponent, int)
        if exponent < -POWER:
            short += sign * Decimal(1).scaleb(short.adjusted() - DIGITS + 1)
    return float(short)


def _is_decimal(multiple: Number, unenforced: UnenforcedKeywords, path: Path) -> bool:
    """Whether the library reads it as what it is."""
    if multiple <= 0 or (isinstance(multiple, float) and not math.isfinite(multiple)):
        raise SchemaError("multipleOf", path, "is not above 0")
    scaled, digits = _as_double(multiple), 0
    while scaled % 1 and digits < 20:
        scaled, digits = scaled * 10.0, digits + 1
    if scaled < 2**32 and Fraction(scaled) / 10**digits == Fraction(repr(multiple)):
        return True
    unenforced.leave_out("multipleOf", path, "has too many digits to be enforced")
    return False


def exactly(value: Any) -> bool:
    """Whether a constant, with all that is in it, is read by the library as what it is."""
    if isinstance(value, dict):
        return all(map(exactly, value.values()))
    if isinstance(value, list):
        return all(map(exactly, value))
    if isinstance(value, float):
        decimal = Decimal(repr(value)).as_tuple()
        few = (
            isinstance(decimal.exponent, int)
            and len(decimal.digits) <= DIGITS
            and abs(decimal.exponent) <= POWER
        )
        return not value or (few and abs(value) <= LARGEST)
    return not isinstance(value, int) or abs(value) <= EXACT
