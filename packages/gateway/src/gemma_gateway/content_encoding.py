"""Decompression of request bodies: ``Content-Encoding``."""

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

from gemma_gateway.errors import BadRequest, BodyTooLarge, UnsupportedMediaType

PIECE: Final = 2**16
"""Bytes per piece, so that one body never blocks the event loop for long."""
MAX_RATIO: Final = 100
"""The largest compression ratio ..."""
MIN_RATIO_BYTES: Final = 2**20
"""... of a body that is larger than this, in bytes."""
ENCODINGS: Final = ("gzip", "deflate")


class ContentDecoder(Protocol):
    """Decodes a body piece by piece."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes, in pieces of at most ``PIECE`` bytes."""

    def end(self) -> None:
        """Called after the last data. Raises ``BadRequest`` if the body is incomplete."""


def content_decoder(content_encoding: str) -> ContentDecoder:
    """The decoder for the value of a ``Content-Encoding`` header; the value is empty without a header.

    Raises:
        UnsupportedMediaType: the encoding is unknown, or there are several.
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
        """Does nothing: any body is complete."""


class _Zlib:
    """gzip, or deflate with zlib's header (RFC 9110) or without it, which some clients send.

    The first byte distinguishes the two: the lower half of zlib's header is the number of deflate.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._inflate: zlib._Decompress | None = None
        self._taken = self._given = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """See ``ContentDecoder``.

        Raises:
            BadRequest: the data does not have this encoding.
            BodyTooLarge: the compression ratio is too large.
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
        """See ``ContentDecoder``."""
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
        if self._given > max(MIN_RATIO_BYTES, MAX_RATIO * self._taken):
            sentence = f"The request body grows more than {MAX_RATIO} times when it is decompressed."
            raise BodyTooLarge(sentence)

    def _invalid(self) -> BadRequest:
        sentence = f"The request body is not one complete {self._name} stream, as its Content-Encoding says."
        return BadRequest(sentence, code="invalid_compressed_body")
