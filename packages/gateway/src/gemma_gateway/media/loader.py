"""Loads the images and audio of a request: from data URLs, base64 and URLs to encoded files.

Of an image only the header is parsed here, to refuse other data and images that are too large. The model
decodes the images, and parses and decodes the audio. M4A, AAC and WebM are converted to WAV here.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Final

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from gemma_gateway.errors import BadRequest
from gemma_gateway.media.audio_format import HEAD_BYTES, demuxer
from gemma_gateway.media.fetcher import Fetcher, FetchLimits, FetchRefused
from gemma_gateway.media.recording import RATE, convert_to_wav
from gemma_gateway.settings import GatewaySettings
from gemma_wire.lenient_base64 import NotBase64, TooManyBytes, decode_base64
from gemma_wire.tiff import check_directory

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MediaReference = tuple[str, str]
"""The parameter that contains a file (``messages[0].content[1].image_url.url``), and its value."""
CONVERTED: Final = ("aac", "matroska", "mov")
"""Containers that the model's libsndfile cannot read."""
_HEADER: Final = re.compile(
    r"\s*data:\s*(?P<type>[\w.+-]+/[\w.+-]+)?\s*(?:;\s*[\w.+-]+=(?:\"[^\"]*\"|[^;,\"]*))*;\s*base64\s*,",
    re.ASCII | re.IGNORECASE,
)
_LONGEST_HEADER: Final = 1000
_ANY_TYPE: Final = ("application/octet-stream", "binary/octet-stream", "application/binary")
"""Unspecific media types, and also assumed where there is none: the format is detected from the content."""


@dataclass(frozen=True)
class _Kind:
    """A kind of media: its media types, and its error codes, which for images are OpenAI's."""

    family: str
    other_types: tuple[str, ...]
    files: str
    bad_base64: str
    bad_url: str
    bad_type: str
    empty: str
    too_large: str
    too_many: str


_IMAGE: Final = _Kind(
    family="image",
    other_types=_ANY_TYPE,
    files="images",
    bad_base64="invalid_base64_image",
    bad_url="invalid_image_url",
    bad_type="unsupported_image_media_type",
    empty="empty_image_file",
    too_large="image_file_too_large",
    too_many="too_many_images",
)
_AUDIO: Final = _Kind(
    family="audio",
    other_types=(*_ANY_TYPE, "application/ogg", "video/ogg", "video/webm", "video/mp4", "video/quicktime"),
    files="audio",
    bad_base64="invalid_base64_audio",
    bad_url="invalid_audio_url",
    bad_type="unsupported_audio_media_type",
    empty="empty_audio_file",
    too_large="audio_file_too_large",
    too_many="too_many_audio_files",
)


_load_directory = ImageFileDirectory_v2.load


def _load_checked_directory(self: ImageFileDirectory_v2, file: IO[bytes]) -> None:
    check_directory(file, self._endian, self._bigtiff)
    _load_directory(self, file)


ImageFileDirectory_v2.load = _load_checked_directory  # type: ignore[method-assign,assignment]  # see gemma_wire.tiff


async def read_images(
    references: Sequence[MediaReference], settings: GatewaySettings, fetcher: Fetcher | None = None
) -> tuple[bytes, ...]:
    """The encoded image files of data URLs and, if the settings allow it, of http(s) URLs, in order.

    Args:
        references: ``data:image/…;base64,…``, or the URL of an image.
        settings: the limits.
        fetcher: for http(s) URLs; made from the settings when not given. It is closed at the end.

    Raises:
        BadRequest: with the ``param`` of the reference that is refused.
    """
    if not references:
        return ()
    _check_count(_IMAGE, references, settings.max_images)
    fetched = await _fetch_all(_IMAGE, references, settings, fetcher)
    return await asyncio.to_thread(_read_all, references, fetched, settings)


async def read_audio(
    references: Sequence[MediaReference], settings: GatewaySettings, fetcher: Fetcher | None = None
) -> tuple[bytes, ...]:
    """The encoded audio files of base64 texts, data URLs and http(s) URLs, in order.

    http(s) URLs are fetched as those of images are.

    Raises:
        BadRequest: with the ``param`` of the first reference that is refused.
    """
    if not references:
        return ()
    _check_count(_AUDIO, references, settings.max_audio)
    fetched = await _fetch_all(_AUDIO, references, settings, fetcher)
    files = await asyncio.to_thread(
        lambda: [
            _fetched_audio(param, fetched[text])
            if text in fetched
            else _read_audio_text(param, text, settings)
            for param, text in references
        ]
    )
    params = [param for param, _ in references]
    return tuple([await _readable(*each, settings) for each in zip(params, files, strict=True)])


async def _readable(param: str, data: bytes, settings: GatewaySettings) -> bytes:
    """The file, as WAV if the model cannot read its format."""
    if demuxer(data[:HEAD_BYTES]) not in CONVERTED:
        return data
    max_seconds = min(settings.max_audio_seconds, settings.max_audio_bytes / (2 * RATE))
    return await convert_to_wav(data, param, max_seconds)


def read_image(param: str, url: str, settings: GatewaySettings) -> bytes:
    """The encoded image file in a data URL.

    Args:
        param: the parameter that contains ``url``, for errors.
        url: ``data:image/…;base64,…``.
        settings: the limits.

    Raises:
        BadRequest: it is not an image, or exceeds the limits.
    """
    data = _decoded(_IMAGE, param, _payload(_IMAGE, param, url), settings.max_image_bytes)
    _check_header(param, data, settings.max_image_pixels)
    return data


def _check_count(kind: _Kind, references: Sequence[MediaReference], most: int) -> None:
    if len(references) > most:
        sentence = f"At most {most} {kind.family} files are allowed."
        raise BadRequest(sentence, param=references[most][0], code=kind.too_many)


def _is_remote(url: str) -> bool:
    return url[:8].lower().startswith(("http://", "https://"))


async def _fetch_all(
    kind: _Kind, references: Sequence[MediaReference], settings: GatewaySettings, fetcher: Fetcher | None
) -> dict[str, bytes]:
    """URL → file, for the references that are http(s) URLs; fetched concurrently, and each URL once."""
    params = {url: param for param, url in reversed(references) if _is_remote(url)}
    if not params:
        return {}
    if not settings.domains:
        sentence = f"Fetching {kind.files} by URL is not enabled."
        raise BadRequest(sentence, param=next(reversed(params.values())), code=kind.bad_url)
    try:
        async with fetcher or _fetcher(kind, settings) as opened, asyncio.TaskGroup() as group:
            tasks = {
                url: group.create_task(_fetch(kind, opened, param, url)) for url, param in params.items()
            }
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return {url: task.result() for url, task in tasks.items()}


async def _fetch(kind: _Kind, fetcher: Fetcher, param: str, url: str) -> bytes:
    try:
        return await fetcher.get(url)
    except FetchRefused as refused:
        # the fetcher's messages and codes are about images
        message = refused.message.replace("images", kind.files).replace("image", kind.family)
        raise BadRequest(message, param=param, code=refused.code.replace("image", kind.family)) from None


def _fetcher(kind: _Kind, settings: GatewaySettings) -> Fetcher:
    """All fetched files of one kind together may have the maximum size of a request body."""
    max_bytes = settings.max_image_bytes if kind is _IMAGE else settings.max_audio_bytes
    limits = FetchLimits(settings.domains, max_bytes, settings.media_seconds)
    return Fetcher(limits, total_bytes=settings.max_body_bytes)


def _read_all(
    references: Sequence[MediaReference], fetched: Mapping[str, bytes], settings: GatewaySettings
) -> tuple[bytes, ...]:
    return tuple(
        _fetched_image(param, fetched[url], settings) if url in fetched else read_image(param, url, settings)
        for param, url in references
    )


def _fetched_image(param: str, data: bytes, settings: GatewaySettings) -> bytes:
    """A fetched image file; its server's Content-Type is ignored."""
    if not data:
        raise _empty(_IMAGE, param)
    _check_header(param, data, settings.max_image_pixels)
    return data


def _fetched_audio(param: str, data: bytes) -> bytes:
    """A fetched audio file; the model detects its format."""
    if not data:
        raise _empty(_AUDIO, param)
    return data


def _read_audio_text(param: str, text: str, settings: GatewaySettings) -> bytes:
    if text[:_LONGEST_HEADER].lstrip()[:5].lower() == "data:":
        text = _payload(_AUDIO, param, text)
    return _decoded(_AUDIO, param, text, settings.max_audio_bytes)


def _payload(kind: _Kind, param: str, url: str) -> str:
    """The part of a data URL after the comma."""
    header = _HEADER.match(url, 0, _LONGEST_HEADER)
    if header is None:
        sentence = f"Expected a URL of the form data:{kind.family}/...;base64,..."
        raise BadRequest(sentence, param=param, code=kind.bad_url)
    media_type = (header["type"] or kind.other_types[0]).lower()
    if not media_type.startswith(f"{kind.family}/") and media_type not in kind.other_types:
        raise BadRequest(f"{header['type']} is not an {kind.family} type.", param=param, code=kind.bad_type)
    return url[header.end() :]


def _decoded(kind: _Kind, param: str, text: str, max_bytes: int) -> bytes:
    """The bytes of a base64 text; decoding stops at ``max_bytes``."""
    try:
        data = decode_base64(text, max_bytes)
    except TooManyBytes:
        raise _too_many_bytes(kind, param, max_bytes) from None
    except NotBase64:
        sentence = f"The {kind.family} is not valid base64."
        raise BadRequest(sentence, param=param, code=kind.bad_base64) from None
    if not data:
        raise _empty(kind, param)
    return data


def _check_header(param: str, data: bytes, max_pixels: int) -> None:
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(param, "too many", max_pixels) from None
    except Exception:  # for invalid files Pillow raises many types of exceptions
        sentence = f"The image cannot be read; supported formats are {', '.join(FORMATS)}."
        raise BadRequest(sentence, param=param, code="invalid_image_format") from None
    if width * height > max_pixels:
        raise _too_many_pixels(param, f"{width}x{height}", max_pixels)


def _too_many_pixels(param: str, what: str, most: int) -> BadRequest:
    sentence = f"The image has {what} pixels; at most {most} are allowed."
    return BadRequest(sentence, param=param, code="image_too_large")


def _empty(kind: _Kind, param: str) -> BadRequest:
    return BadRequest(f"The {kind.family} is empty.", param=param, code=kind.empty)


def _too_many_bytes(kind: _Kind, param: str, most: int) -> BadRequest:
    sentence = f"The {kind.family} is larger than {most} bytes."
    return BadRequest(sentence, param=param, code=kind.too_large)
