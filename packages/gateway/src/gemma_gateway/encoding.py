"""Compressed request bodies: ``Content-Encoding``."""

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

from gemma_gateway.errors import BadRequest, BodyTooLarge, UnsupportedMediaType

PIECE: Final = 2**16
"""Bytes that are handed on at a time, so that the event loop is never busy with one body for long."""
MAX_RATIO: Final = 100
"""Times that a body may grow when it is decompressed, ..."""
RATIO_FREE: Final = 2**20
"""... once it has more bytes than these."""
ENCODINGS: Final = ("gzip", "deflate")


class Decoder(Protocol):
    """Undoes an encoding, piece by piece."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The next bytes, in pieces of at most ``PIECE`` bytes."""

    def end(self) -> None:
        """Called when no data is left; raises ``BadRequest`` when the body is not complete."""


def decoder(content_encoding: str) -> Decoder:
    """The decoder for the value of a ``Content-Encoding`` header; empty when there is none.

    Raises:
        UnsupportedMediaType: the encoding is not known, or there are several.
    """
    names = [name.strip().lower().removeprefix("x-") for name in content_encoding.split(",")]
    encodings = [name for name in names if name not in ("", "identity")]
    if not encodings:
        return _Identity()
    if len(encodings) > 1 or encodings[0] not in ENCODINGS:
        sentence = f"The Content-Encoding {content_encoding[:100]!r} is not supported; use gzip or deflate."
        raise UnsupportedMediaType(sentence, headers={"Accept-Encoding": ", ".join(ENCODINGS)})
    return _Zlib(encodings[0])


class _Identity:
    def pieces(self, data: bytes) -> Iterator[bytes]:
        yield from (data[start : start + PIECE] for start in range(0, len(data), PIECE))

    def end(self) -> None:
        """Any body is complete."""


class _Zlib:
    """gzip, or deflate in either form that clients send: with zlib's header, as RFC 9110 says, and without.

    The first byte tells them apart: zlib's header names deflate as its method in the lower half.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._inflate: zlib._Decompress | None = None
        self._taken = self._given = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """See ``Decoder``.

        Raises:
            BadRequest: the data is not what the header says.
            BodyTooLarge: the body grows too much.
        """
        self._taken += len(data)
        for start in range(0, len(data), PIECE):
            yield from self._inflated(data[start : start + PIECE])

    def _inflated(self, data: bytes) -> Iterator[bytes]:
        inflate = self._inflate = self._inflate or zlib.decompressobj(self._window(data[0]))
        while data or inflate.unconsumed_tail:
            try:
                piece = inflate.decompress(data or inflate.unconsumed_tail, PIECE)
            except zlib.error:
                raise self._invalid() from None
            data = b""
            self._check(len(piece), inflate.unused_data)
            if piece:
                yield piece

    def end(self) -> None:
        """See ``Decoder``."""
        if self._inflate is None or not self._inflate.eof:
            raise self._invalid()

    def _window(self, first: int) -> int:
        if self._name == "gzip":
            return zlib.MAX_WBITS | 16
        return zlib.MAX_WBITS if first & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS

    def _check(self, more: int, unused: bytes) -> None:
        self._given += more
        if unused:
            raise self._invalid()
        if self._given > max(RATIO_FREE, MAX_RATIO * self._taken):
            sentence = f"The request body grows more than {MAX_RATIO} times when it is decompressed."
            raise BodyTooLarge(sentence)

    def _invalid(self) -> BadRequest:
        sentence = f"The request body is not one complete {self._name} stream, as its Content-Encoding says."
        return BadRequest(sentence, code="invalid_compressed_body")
