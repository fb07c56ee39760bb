"""The tensors and the JSON that cross Triton, in both directions."""

from gemma_wire.chunk import Chunk, FinishReason, ModelInfo, Usage
from gemma_wire.errors import (
    ContextLengthExceeded,
    EngineFailure,
    InvalidRequest,
    Overloaded,
    Unavailable,
    WireError,
)
from gemma_wire.request import AudioPart, ImagePart, Message, Options, Part, Request, TextPart

__all__ = [
    "AudioPart",
    "Chunk",
    "ContextLengthExceeded",
    "EngineFailure",
    "FinishReason",
    "ImagePart",
    "InvalidRequest",
    "Message",
    "ModelInfo",
    "Options",
    "Overloaded",
    "Part",
    "Request",
    "TextPart",
    "Unavailable",
    "Usage",
    "WireError",
]
