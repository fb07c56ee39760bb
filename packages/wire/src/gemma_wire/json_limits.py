"""Limits on JSON that are checked before it is parsed.

A JSON parser holds Python's global lock for the complete text, and all other threads wait: the event loop of
the gateway, the engine of the model. How long depends on the content more than on the size. ``JsonCounter``
counts the content beforehand, piece by piece, about as fast as a copy.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from gemma_wire.tensors import Array

PIECE: Final = 2**16
"""Bytes that are counted in less than a millisecond."""


@dataclass(frozen=True)
class JsonLimits:
    """The maximum number of each in one text.

    Args:
        values: of every kind; the items of arrays and the members of objects.
        strings: keys included.
        containers: objects and arrays.
        depth: levels of nesting.
        escapes: in strings, such as an escaped line break.
        digits: of all numbers together.
        non_ascii: bytes of non-ASCII characters.
    """

    values: int = 2**18
    strings: int = 2**16
    containers: int = 2**15
    depth: int = 128
    escapes: int = 3 * 2**19
    digits: int = 2**21
    non_ascii: int = 2**23


LIMITS: Final = JsonLimits()
_NAMES: Final = {
    "depth": "levels of nesting",
    "values": "values",
    "strings": "strings (including keys)",
    "containers": "objects and arrays",
    "escapes": "escapes in strings",
    "digits": "digits in numbers",
    "non_ascii": "non-ASCII bytes",
}


class JsonLimitExceeded(ValueError):
    """A text exceeds a limit.

    Args:
        what: a field of ``JsonLimits``.
        limit: its value.
        key_end: the end of the top-level key whose value exceeds the limit; 0 if there is none.
    """

    def __init__(self, what: str, limit: int, key_end: int = 0) -> None:
        super().__init__(f"more than {limit:,} {_NAMES[what]}")
        self.what = what
        self.key_end = key_end


class JsonCounter:
    """Counts the content of a JSON text while its pieces arrive.

    In invalid JSON, the counts may be wrong after the first error, where a parser stops, too.
    """

    def __init__(self, limits: JsonLimits = LIMITS) -> None:
        self._limits = limits
        self.counts = dict.fromkeys(_NAMES, 0)
        """The counts so far, by the names of ``JsonLimits``."""
        self._in_string = False
        self._escaped = False  # by the last byte
        self._depth = 0
        self._bytes = 0
        self._key_end = self._deepest_key_end = 0

    def feed(self, piece: bytes) -> None:
        """Counts the next piece, preferably of at most ``PIECE`` bytes.

        Raises:
            JsonLimitExceeded: the text exceeds a limit.
        """
        key_end = self._key_end if self._depth > 1 else 0
        if not piece.isascii():
            self.counts["non_ascii"] += np.count_nonzero(np.frombuffer(piece, np.uint8) & 0x80)
        plain = self._without_escapes(piece)
        if b'"' in plain or (plain and not self._in_string):
            self._count(np.frombuffer(plain, np.uint8))
        self._bytes += len(piece)
        for what, count in self.counts.items():
            if count > (limit := getattr(self._limits, what)):
                raise JsonLimitExceeded(what, limit, self._deepest_key_end if what == "depth" else key_end)

    def _without_escapes(self, piece: bytes) -> bytes:
        """The piece with the same length, where escaped quotes and backslashes are replaced."""
        if self._escaped and piece:
            piece = b"_" + piece[1:]
            self._escaped = False
        if b"\\" in piece:
            self.counts["escapes"] += piece.count(b"\\\\")
            piece = piece.replace(b"\\\\", b"__")
            self.counts["escapes"] += piece.count(b"\\")
            self._escaped = piece.endswith(b"\\")
            piece = piece.replace(b'\\"', b"__")
        return piece

    def _count(self, text: Array) -> None:
        quotes = text == _QUOTE
        inside = np.bitwise_xor.accumulate(quotes.view(np.uint8))  # 1 from an opening quote on
        inside ^= np.uint8(self._in_string)
        kinds = _KINDS[text] * (inside ^ 1)
        counts = self.counts
        opened = np.count_nonzero(kinds == _OPENING)
        counts["strings"] += np.count_nonzero(quotes & inside.view(np.bool_))
        counts["containers"] += opened
        counts["values"] += opened + np.count_nonzero(kinds == _COMMA)
        counts["digits"] += np.count_nonzero(kinds == _DIGIT)
        self._nest(kinds)
        self._in_string = bool(inside[-1])

    def _nest(self, kinds: Array) -> None:
        depths = self._depth + np.cumsum(_STEPS[kinds], dtype=np.int32)
        keys = self._bytes + np.flatnonzero((kinds == _COLON) & (depths == 1))
        deepest = int(depths.argmax())
        if depths[deepest] > self.counts["depth"]:
            self.counts["depth"] = int(depths[deepest])
            before = keys[keys < self._bytes + deepest]
            self._deepest_key_end = int(before[-1]) if len(before) else self._key_end
        if len(keys):
            self._key_end = int(keys[-1])
        self._depth = int(depths[-1])


def check_json(text: bytes, limits: JsonLimits = LIMITS) -> None:
    """Counts a complete text.

    Raises:
        JsonLimitExceeded: it exceeds a limit.
    """
    counter = JsonCounter(limits)
    view = memoryview(text)
    for start in range(0, len(text), PIECE):
        counter.feed(bytes(view[start : start + PIECE]))


_QUOTE: Final = ord('"')
_OPENING, _CLOSING, _COMMA, _COLON, _DIGIT = 1, 2, 3, 4, 5
_KINDS: Final = np.zeros(256, np.uint8)
for _letters, _kind in (
    (b"[{", _OPENING),
    (b"]}", _CLOSING),
    (b",", _COMMA),
    (b":", _COLON),
    (b"0123456789", _DIGIT),
):
    _KINDS[list(_letters)] = _kind
_STEPS: Final = np.array([0, 1, -1, 0, 0, 0], np.int8)
"""Kind → change of the nesting depth."""
