"""What the answers of every family of endpoints have in common."""

import hashlib
import time
import uuid
from dataclasses import dataclass

from openai.types import CompletionUsage
from openai.types.completion_usage import PromptTokensDetails

import gemma_wire as wire


@dataclass(frozen=True)
class Head:
    """What stands in each piece of an answer.

    Args:
        id: of the answer.
        created: Unix time, seconds.
        model: the id of the model that answers.
        system_fingerprint: changes when what makes the answers does.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str

    @staticmethod
    def new(kind: str, model: str, info: wire.ModelInfo) -> "Head":
        """The head of a new answer, whose id begins with ``kind``."""
        return Head(f"{kind}-{uuid.uuid4().hex}", int(time.time()), model, fingerprint(info))


def fingerprint(info: wire.ModelInfo) -> str:
    """Of the model, the engine that runs it, and the device and number format that it is run in."""
    text = "\n".join((info.model, info.engine, info.device, info.dtype, str(info.memory_bytes)))
    return f"fp_{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def counts(usage: wire.Usage) -> CompletionUsage:
    """Token counts, as OpenAI tells them."""
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
    )
