"""Encoded pictures → pixels, by the checkpoint's own image processor."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers import AutoImageProcessor

from gemma_model.protocol import Media
from gemma_wire import InvalidRequest

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
Image.MAX_IMAGE_PIXELS = None  # _check_size is stricter and says its limit


class ImageDecoder:
    """Decodes and resizes pictures; safe to call from several threads.

    Args:
        folder: of the checkpoint; its ``preprocessor_config.json`` or ``processor_config.json`` says how.
        max_pixels: of one picture, before resizing; checked on the header, before decoding.
    """

    def __init__(self, folder: Path, max_pixels: int) -> None:
        self._processor: Any = AutoImageProcessor.from_pretrained(folder)
        self._max_pixels = max_pixels

    def decode(self, data: bytes, field: str) -> Media:
        """Pixels ``[3, height, width]`` fp32 of a file in one of ``FORMATS`` (its first frame).

        Args:
            data: the file.
            field: what to call it in an error, such as ``images[0]``.

        Raises:
            InvalidRequest: when it is no picture, is cut short, or has too many pixels.
        """
        picture = self._open(data, field)
        features = self._processor(images=picture, return_tensors="np")["pixel_values"][0].astype(np.float32)
        return Media("image", hashlib.sha256(features.tobytes()).digest(), features)

    def _open(self, data: bytes, field: str) -> Image.Image:
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                self._check_size(picture, field)
                return _upright_rgb(picture)
        except UnidentifiedImageError:
            raise InvalidRequest(f"is not a picture of a known format: {', '.join(FORMATS)}", field) from None
        except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises on broken files
            raise InvalidRequest(f"cannot be decoded: {error}", field) from None

    def _check_size(self, picture: Image.Image, field: str) -> None:
        width, height = picture.size
        if width * height > self._max_pixels:
            limit = f"{self._max_pixels:,} pixels are the limit"
            raise InvalidRequest(f"is {width:,} × {height:,} pixels; {limit}", field)


def _upright_rgb(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF says, transparency laid on white."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would clip them to white
        upright = Image.fromarray((np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if upright.has_transparency_data:
        layered = upright.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return upright.convert("RGB")
