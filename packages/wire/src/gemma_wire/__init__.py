"""The tensors and the JSON that cross Triton, in both directions."""

from gemma_wire.chunk import (
    Alternative,
    Chunk,
    FinishReason,
    ModelInfo,
    PromptLogprobs,
    Timings,
    TokenizerInfo,
    TokenLogprob,
    Tokens,
    ToolCallDelta,
    Usage,
)
from gemma_wire.errors import (
    ContextLengthExceeded,
    EngineFailure,
    InvalidRequest,
    Overloaded,
    Unavailable,
    WireError,
)
from gemma_wire.messages import AudioPart, ImagePart, Message, Part, TextPart, Tool, ToolCall
from gemma_wire.options import ChoiceGrammar, Grammar, JsonGrammar, LarkGrammar, Options, RegexGrammar
from gemma_wire.request import Request, read_parameters

__all__ = [
    "Alternative",
    "AudioPart",
    "ChoiceGrammar",
    "Chunk",
    "ContextLengthExceeded",
    "EngineFailure",
    "FinishReason",
    "Grammar",
    "ImagePart",
    "InvalidRequest",
    "JsonGrammar",
    "LarkGrammar",
    "Message",
    "ModelInfo",
    "Options",
    "Overloaded",
    "Part",
    "PromptLogprobs",
    "RegexGrammar",
    "Request",
    "TextPart",
    "Timings",
    "TokenLogprob",
    "TokenizerInfo",
    "Tokens",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Unavailable",
    "Usage",
    "WireError",
    "read_parameters",
]
