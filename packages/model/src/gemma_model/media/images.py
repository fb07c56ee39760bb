"""Encoded images → pixels, with the checkpoint's own image processor."""

import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from gemma_model.engine_types import Media
from gemma_wire import InvalidRequest
from gemma_wire.tiff import check_directory

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
REDUCING_GAP = 2
"""An image is reduced by an integer factor to at least this multiple of its final size; Pillow's default."""
Image.MAX_IMAGE_PIXELS = None  # _check_size is stricter and says its limit
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF

_load_directory = ImageFileDirectory_v2.load


def _load_checked_directory(self: ImageFileDirectory_v2, file: IO[bytes]) -> None:
    check_directory(file, self._endian, self._bigtiff)
    _load_directory(self, file)


ImageFileDirectory_v2.load = _load_checked_directory  # type: ignore[method-assign,assignment]  # see gemma_wire.tiff


@dataclass
class PixelBudget:
    """The pixels that one request may have decoded.

    Args:
        limit: pixels.
    """

    limit: int
    spent: int = 0

    def spend(self, pixels: int, field: str) -> None:
        """Count an image.

        Raises:
            InvalidRequest: the limit is exceeded.
        """
        self.spent += pixels
        if self.spent > self.limit:
            sum_ = f"brings the images of the request to {self.spent:,} pixels"
            raise InvalidRequest(f"{sum_}; the limit is {self.limit:,}", field)


class ImageDecoder:
    """Decodes and resizes images; safe to call from several threads.

    Args:
        folder: of the checkpoint; its ``preprocessor_config.json`` or ``processor_config.json`` is used.
        max_pixels: of one image before resizing; checked in the header, before decoding.
    """

    def __init__(self, folder: Path, max_pixels: int) -> None:
        from transformers import AutoImageProcessor  # noqa: PLC0415 - text alone does without transformers

        self._processor: Any = AutoImageProcessor.from_pretrained(folder)
        self._max_pixels = max_pixels
        self._size = (int(self._processor.size["width"]), int(self._processor.size["height"]))

    def decode(self, data: bytes, field: str, budget: PixelBudget | None = None) -> Media:
        """Pixels ``[3, height, width]`` fp32 of a file in one of ``FORMATS`` (its first frame).

        Args:
            data: the file.
            field: its name in errors, such as ``images[0]``.
            budget: of the request.

        Raises:
            InvalidRequest: it is not an image, is truncated, or has too many pixels.
        """
        image = self._open(data, field, budget)
        features = self._processor(images=image, return_tensors="np")["pixel_values"][0].astype(np.float32)
        return Media("image", hashlib.sha256(features.tobytes()).digest(), features)

    def _open(self, data: bytes, field: str, budget: PixelBudget | None) -> Image.Image:
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                self._check_size(image, field)
                if budget is not None:
                    budget.spend(max(image.width * image.height, math.prod(_tile_size(image))), field)
                return _upright_rgb(self._shrink(image))
        except UnidentifiedImageError:
            raise InvalidRequest(
                f"is not an image in a supported format: {', '.join(FORMATS)}", field
            ) from None
        except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises on broken files
            raise InvalidRequest(f"cannot be decoded: {error}", field) from None

    def _check_size(self, image: Image.Image, field: str) -> None:
        limit = f"the limit is {self._max_pixels:,} pixels"
        width, height = image.size
        if width * height > self._max_pixels:
            raise InvalidRequest(f"is {width:,} × {height:,} pixels; {limit}", field)
        width, height = _tile_size(image)
        if width * height > self._max_pixels:
            raise InvalidRequest(f"has tiles of {width:,} × {height:,} pixels; {limit}", field)

    def _shrink(self, image: Image.Image) -> Image.Image:
        """A large image in the tower's size, at a fraction of the cost; any other image unchanged.

        Exact resizing reads each pixel many times. Here a JPEG is decoded at a fraction of its size, then
        each new pixel is the mean of several complete old ones, and the checkpoint's filter does the rest.
        """
        enough = (REDUCING_GAP * self._size[0], REDUCING_GAP * self._size[1])
        if image.width < 2 * enough[0] and image.height < 2 * enough[1]:
            return image
        drafted = image.draft(None, enough)
        box = drafted[1] if drafted else None  # the last column may be a part of one
        resample = Image.Resampling(self._processor.resample)
        return _averageable(image).resize(self._size, resample, box, REDUCING_GAP)


def _tile_size(image: Image.Image) -> tuple[int, int]:
    """Size of a TIFF's tiles, which are decoded completely even for a small image; 0 for other files."""
    if not isinstance(image, TiffImageFile):
        return 0, 0
    width, length = (int(np.max(image.tag_v2.get(tag, 0))) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    return width, length


def _averageable(image: Image.Image) -> Image.Image:
    """Converts to a mode whose values can be averaged: no palette, no transparent colour."""
    if image.mode.startswith("I"):
        return image.convert("I")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("RGB") if image.mode in ("1", "P") else image


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Rotated as its EXIF says, with transparency on white."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would clip them to white
        upright = Image.fromarray((np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8))
    if upright.has_transparency_data:
        layered = upright.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return upright.convert("RGB")
