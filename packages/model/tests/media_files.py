"""Small image and audio files."""

import io
import wave

from PIL import Image

from gemma_model.media.images import ImageDecoder

MAX_PIXELS = 6_000_000
"""Of the fixture ``decoder``."""


def encode(image: Image.Image, fmt: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def png() -> bytes:
    """An image of 4 × 4 pixels."""
    return encode(Image.new("RGB", (4, 4)))


def wav(seconds: float = 0.5) -> bytes:
    """Silence of one channel with 16,000 samples per second."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * int(seconds * 16_000)))
    return buffer.getvalue()


def mean_colour(decoder: ImageDecoder, data: bytes) -> list[float]:
    """Red, green and blue, 0 to 1, of a decoded file."""
    features = decoder.decode(data, "images[0]").features
    return [round(float(channel.mean()), 2) for channel in features]
