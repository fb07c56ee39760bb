"""Encoders that run to their end at once."""

from collections.abc import Generator

from torch import Tensor

from gemma_model.models.model import Encoders


def encode_image(encoders: Encoders, pixels: Tensor) -> Tensor:
    return _result(encoders.encode_image(pixels))


def encode_audio(encoders: Encoders, log_mel: Tensor) -> Tensor:
    return _result(encoders.encode_audio(log_mel))


def _result(encoding: Generator[None, None, Tensor]) -> Tensor:
    try:
        while True:
            next(encoding)
    except StopIteration as finished:
        tokens: Tensor = finished.value
        return tokens
