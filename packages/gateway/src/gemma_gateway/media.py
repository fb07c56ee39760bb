"""Pictures and sounds, from the places of a request that name them to the bytes the model decodes.

Of a picture only the header is looked at here: enough to refuse what is no picture, or too large to decode.
The full decoding is the model's, once; so is any look into a sound.
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
from gemma_gateway.fetch import Fetcher, Limits, Refused
from gemma_gateway.settings import Settings
from gemma_wire.lenient_base64 import NotBase64, TooManyBytes, decode_base64
from gemma_wire.tiff import check_directory

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
Place = tuple[str, str]
"""The parameter that holds a file (``messages[0].content[1].image_url.url``), and what it holds."""
_HEADER: Final = re.compile(
    r"\s*data:\s*(?P<type>[\w.+-]+/[\w.+-]+)?\s*(?:;\s*[\w.+-]+=(?:\"[^\"]*\"|[^;,\"]*))*;\s*base64\s*,",
    re.ASCII | re.IGNORECASE,
)
_LONGEST_HEADER: Final = 1000
_ANY_TYPE: Final = ("application/octet-stream", "binary/octet-stream", "application/binary")
"""Media types that tell nothing: the content does. So it is where there is no type."""


@dataclass(frozen=True)
class _Kind:
    """What is being read: its family of media types, and its codes, which for images are OpenAI's."""

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
    places: Sequence[Place], settings: Settings, fetcher: Fetcher | None = None
) -> tuple[bytes, ...]:
    """The encoded files behind data URLs, and behind http(s) URLs as far as the settings allow, in order.

    Args:
        places: ``data:image/…;base64,…``, or the URL of a picture.
        settings: the limits.
        fetcher: for http(s) URLs; one as the settings say, when not given. It is closed at the end.

    Raises:
        BadRequest: with the ``param`` of a place that is wrong.
    """
    if not places:
        return ()
    _check_count(_IMAGE, places, settings.max_images)
    fetched = await _fetch_all(_IMAGE, places, settings, fetcher)
    return await asyncio.to_thread(_read_all, places, fetched, settings)


async def read_audio(
    places: Sequence[Place], settings: Settings, fetcher: Fetcher | None = None
) -> tuple[bytes, ...]:
    """The encoded files of base64 texts, each alone or in a data URL, and of http(s) URLs, in order.

    http(s) URLs are fetched as those of images are.

    Raises:
        BadRequest: with the ``param`` of the first place that is wrong.
    """
    if not places:
        return ()
    _check_count(_AUDIO, places, settings.max_audio)
    fetched = await _fetch_all(_AUDIO, places, settings, fetcher)
    return await asyncio.to_thread(
        lambda: tuple(
            _heard(param, fetched[text]) if text in fetched else _read_sound(param, text, settings)
            for param, text in places
        )
    )


def read_image(param: str, url: str, settings: Settings) -> bytes:
    """The encoded file that a data URL holds.

    Args:
        param: the parameter that holds ``url``, for errors.
        url: ``data:image/…;base64,…``.
        settings: the limits.

    Raises:
        BadRequest: anything else than a picture within the limits.
    """
    data = _decoded(_IMAGE, param, _payload(_IMAGE, param, url), settings.max_image_bytes)
    _check_header(param, data, settings.max_image_pixels)
    return data


def _check_count(kind: _Kind, places: Sequence[Place], most: int) -> None:
    if len(places) > most:
        sentence = f"At most {most} {kind.family} files are allowed."
        raise BadRequest(sentence, param=places[most][0], code=kind.too_many)


def _is_remote(url: str) -> bool:
    return url[:8].lower().startswith(("http://", "https://"))


async def _fetch_all(
    kind: _Kind, places: Sequence[Place], settings: Settings, fetcher: Fetcher | None
) -> dict[str, bytes]:
    """URL → file, of the places that hold a URL to fetch; all at once, and each URL once."""
    params = {url: param for param, url in reversed(places) if _is_remote(url)}
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
    except Refused as refused:
        # the fetcher's words are about images, which have OpenAI's own codes
        message = refused.message.replace("images", kind.files).replace("image", kind.family)
        raise BadRequest(message, param=param, code=refused.code.replace("image", kind.family)) from None


def _fetcher(kind: _Kind, settings: Settings) -> Fetcher:
    """All of a request's files of a kind together may be as large as if they had come in its body."""
    max_bytes = settings.max_image_bytes if kind is _IMAGE else settings.max_audio_bytes
    limits = Limits(settings.domains, max_bytes, settings.media_seconds)
    return Fetcher(limits, total_bytes=settings.max_body_bytes)


def _read_all(places: Sequence[Place], fetched: Mapping[str, bytes], settings: Settings) -> tuple[bytes, ...]:
    return tuple(
        _seen(param, fetched[url], settings) if url in fetched else read_image(param, url, settings)
        for param, url in places
    )


def _seen(param: str, data: bytes, settings: Settings) -> bytes:
    """A fetched file, which is a picture whatever its server called it."""
    if not data:
        raise _empty(_IMAGE, param)
    _check_header(param, data, settings.max_image_pixels)
    return data


def _heard(param: str, data: bytes) -> bytes:
    """A fetched file; what is in it is the model's to tell."""
    if not data:
        raise _empty(_AUDIO, param)
    return data


def _read_sound(param: str, text: str, settings: Settings) -> bytes:
    if text[:_LONGEST_HEADER].lstrip()[:5].lower() == "data:":
        text = _payload(_AUDIO, param, text)
    return _decoded(_AUDIO, param, text, settings.max_audio_bytes)


def _payload(kind: _Kind, param: str, url: str) -> str:
    """What follows the comma of a data URL."""
    header = _HEADER.match(url, 0, _LONGEST_HEADER)
    if header is None:
        sentence = f"Expected a URL of the form data:{kind.family}/...;base64,..."
        raise BadRequest(sentence, param=param, code=kind.bad_url)
    media_type = (header["type"] or kind.other_types[0]).lower()
    if not media_type.startswith(f"{kind.family}/") and media_type not in kind.other_types:
        raise BadRequest(f"{header['type']} is no {kind.family}.", param=param, code=kind.bad_type)
    return url[header.end() :]


def _decoded(kind: _Kind, param: str, text: str, max_bytes: int) -> bytes:
    """The bytes of a base64 text; decoding stops where they become too many."""
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
    except Exception:  # on hostile bytes Pillow's readers raise whatever their parsing stumbles on
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
