"""Pictures, from the URLs of a request to the bytes the model decodes.

Only the header is looked at here: enough to refuse what is no picture, or too large to decode.
The full decoding is the model's, once.
"""

import asyncio
import re
from binascii import a2b_base64
from collections.abc import Sequence
from io import BytesIO

from PIL import Image

from gemma_gateway.errors import BadRequest
from gemma_gateway.settings import Settings

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
Place = tuple[str, str]
"""The parameter that holds a URL (``messages[0].content[1].image_url.url``), and the URL."""
_HEADER = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[^;,]*)*;base64", re.ASCII | re.IGNORECASE)
_SLICE = 2**18  # characters decoded at a time, between which other threads get their turn; a multiple of 4


async def read_images(places: Sequence[Place], settings: Settings) -> tuple[bytes, ...]:
    """The encoded files, in order.

    Raises:
        BadRequest: with the ``param`` of the first place that is wrong.
    """
    if not places:
        return ()
    if len(places) > settings.max_images:
        param = places[settings.max_images][0]
        raise BadRequest(
            f"At most {settings.max_images} images are allowed.", param=param, code="too_many_images"
        )
    return await asyncio.to_thread(_read_all, places, settings)


def _read_all(places: Sequence[Place], settings: Settings) -> tuple[bytes, ...]:
    return tuple(read_image(param, url, settings) for param, url in places)


def read_image(param: str, url: str, settings: Settings) -> bytes:
    """The encoded file that a data URL holds.

    Args:
        param: the parameter that holds ``url``, for errors.
        url: ``data:image/…;base64,…``.
        settings: the limits.

    Raises:
        BadRequest: anything else than a picture within the limits.
    """
    data = _from_base64(param, _payload(param, url, settings.max_image_bytes))
    if not data:
        raise BadRequest("The image is empty.", param=param, code="empty_image_file")
    if len(data) > settings.max_image_bytes:
        raise _too_many_bytes(param, settings.max_image_bytes)
    _check_header(param, data, settings.max_image_pixels)
    return data


def _payload(param: str, url: str, max_bytes: int) -> str:
    """What follows the comma of a data URL."""
    if url[:8].lower().startswith(("http://", "https://")):
        raise BadRequest("Fetching images by URL is not enabled.", param=param, code="invalid_image_url")
    comma = url.find(",", 0, 1000)
    header = _HEADER.fullmatch(url[: max(comma, 0)])
    if header is None:
        raise BadRequest(
            "Expected a URL of the form data:image/...;base64,...", param=param, code="invalid_image_url"
        )
    if not header[1].lower().startswith("image/"):
        raise BadRequest(f"{header[1]} is no image.", param=param, code="unsupported_image_media_type")
    if (len(url) - comma) // 4 * 3 > max_bytes + 3:
        raise _too_many_bytes(param, max_bytes)
    return url[comma + 1 :]


def _from_base64(param: str, text: str) -> bytes:
    try:
        if text.find("=", 0, -2) != -1:
            raise ValueError("padding before the end")
        slices = (text[start : start + _SLICE] for start in range(0, len(text), _SLICE))
        return b"".join(a2b_base64(piece, strict_mode=True) for piece in slices)
    except ValueError:
        raise BadRequest("The image is not valid base64.", param=param, code="invalid_base64_image") from None


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


def _too_many_bytes(param: str, most: int) -> BadRequest:
    sentence = f"The image is larger than {most} bytes."
    return BadRequest(sentence, param=param, code="image_file_too_large")
