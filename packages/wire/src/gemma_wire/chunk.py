"""What the model answers, as typed values and as tensors."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from gemma_wire import tensors
from gemma_wire.tensors import Array

FinishReason = Literal["stop", "length"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)  # unknown fields are ignored: the other side may be newer


class Usage(_Frozen):
    """Token counts, by the model's own tokenizer; ``cached_tokens`` of the prompt were not run again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class Chunk(_Frozen):
    """A piece of an answer.

    Args:
        text: the next piece; empty in a chunk that only finishes.
        index: which choice it belongs to.
        finish_reason: set in the last chunk of a choice, and only there.
        usage: set in the last chunk.
    """

    text: str = ""
    index: int = 0
    finish_reason: FinishReason | None = None
    usage: Usage | None = None

    def to_tensors(self) -> dict[str, Array]:
        """``text`` and ``chunk``; the text is not repeated in the JSON."""
        rest = self.model_dump_json(exclude={"text"}, exclude_none=True)
        return {"text": tensors.pack(tensors.TEXT, [self.text]), "chunk": tensors.pack(tensors.CHUNK, [rest])}

    @classmethod
    def from_tensors(cls, arrays: Mapping[str, Array]) -> Self:
        """The inverse of ``to_tensors``."""
        rest = cls.model_validate_json(arrays["chunk"].item())
        return rest.model_copy(update={"text": arrays["text"].item().decode()})


class ModelInfo(_Frozen):
    """The answer to ``op=describe``: what is served, and on what.

    Args:
        model: the checkpoint's name: a hub id, or the folder's last part.
        created: Unix time of loading, seconds.
        context_length: tokens, prompt and answer together.
        memory_bytes: the weights, as loaded.
        running, waiting: requests at this moment.
    """

    model: str
    created: int
    engine: str
    device: str
    dtype: str
    context_length: int
    max_num_seqs: int
    memory_bytes: int
    modalities: tuple[str, ...]
    running: int = 0
    waiting: int = 0

    def to_tensors(self) -> dict[str, Array]:
        """``text`` is empty, ``chunk`` holds the JSON."""
        chunk = tensors.pack(tensors.CHUNK, [self.model_dump_json()])
        return {"text": tensors.pack(tensors.TEXT, [""]), "chunk": chunk}

    @classmethod
    def from_tensors(cls, arrays: Mapping[str, Array]) -> Self:
        """The inverse of ``to_tensors``."""
        return cls.model_validate_json(arrays["chunk"].item())
