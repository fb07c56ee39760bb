"""Decodes base64 in every form that clients send."""

import binascii
from typing import Final

_SLICE: Final = 2**18
"""Characters that are decoded at a time; other threads can run in between."""
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_WHITESPACE: Final = b" \t\n\v\f\r"
_ESCAPES: Final = {f"%{ord(letter):02X}".encode(): letter.encode() for letter in "+/=-_ \t\r\n"}
"""Percent escapes of the characters in base64 that are not alphanumeric."""


class NotBase64(ValueError):
    """The text is not base64."""


class TooManyBytes(ValueError):
    """More bytes than allowed."""


def decode_base64(text: str | bytes, max_bytes: int | None = None) -> bytes:
    """The bytes of a base64 text.

    The text may have whitespace anywhere, no padding, the URL-safe alphabet, and percent escapes.

    Args:
        text: of any length.
        max_bytes: the limit, at which decoding stops.

    Raises:
        TooManyBytes: there are more than ``max_bytes``.
        NotBase64: the text is not base64.
    """
    decoding = _Decoding(max_bytes)
    try:
        for start in range(0, len(text), _SLICE):
            piece = text[start : start + _SLICE]
            decoding.feed(piece.encode("ascii") if isinstance(piece, str) else piece)
        return decoding.end()
    except (binascii.Error, UnicodeEncodeError) as error:
        raise NotBase64(str(error)) from None


class _Decoding:
    def __init__(self, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        self._decoded = bytearray()
        self._escape = b""  # an incomplete escape
        self._letters = b""  # fewer than four, to be decoded with the next piece
        self._padded = False

    def feed(self, piece: bytes) -> None:
        letters, padding, rest = self._plain(self._escape + piece).partition(b"=")
        if rest.strip(b"=") or (letters and self._padded):
            raise NotBase64("letters after the padding")
        self._padded |= bool(padding)
        letters = self._letters + letters
        usable = len(letters) & ~3
        self._add(letters[:usable])
        self._letters = letters[usable:]

    def end(self) -> bytes:
        if self._escape or len(self._letters) == 1:
            raise NotBase64("the end is missing")
        if self._letters:
            self._add(self._letters.ljust(4, b"="))
        return bytes(self._decoded)

    def _add(self, letters: bytes) -> None:
        self._decoded += binascii.a2b_base64(letters, strict_mode=True)
        if self._max_bytes is not None and len(self._decoded) > self._max_bytes:
            raise TooManyBytes(f"more than {self._max_bytes} bytes")

    def _plain(self, piece: bytes) -> bytes:
        """The piece in the standard alphabet, without whitespace and escapes."""
        self._escape = b""
        if b"%" in piece:
            cut = piece.rfind(b"%", len(piece) - 2)
            if cut >= 0:
                piece, self._escape = piece[:cut], piece[cut:]
            for escape, letter in _ESCAPES.items():
                piece = piece.replace(escape, letter).replace(escape.lower(), letter)
        return piece.translate(_URL_SAFE, _WHITESPACE)
