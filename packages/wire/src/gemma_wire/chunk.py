"""What the model answers, as typed values and as tensors."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from gemma_wire import tensors
from gemma_wire.tensors import Array

FinishReason = Literal["stop", "length", "tool_calls"]


class _Frozen(BaseModel):
    # Unknown fields are ignored: the other side may be newer.
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Usage(_Frozen):
    """Token counts, by the model's own tokenizer; ``cached_tokens`` of the prompt were not run again."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class Timings(_Frozen):
    """Where the time of a request went, in seconds: in the queue, on the prompt, on the new tokens."""

    queued: float
    prefill: float
    decode: float


class Alternative(_Frozen):
    """A token that could have come.

    Args:
        token: as text; bytes that are no character of their own show as U+FFFD.
        utf8: the bytes it stands for.
        logprob: natural logarithm of its probability, before temperature and truncation; -9999 for none.
    """

    token_id: int
    token: str
    utf8: tuple[int, ...]
    logprob: float


class TokenLogprob(Alternative):
    """A token of the prompt or the answer.

    Args:
        top: the likeliest in its place, best first, or those that ``logprob_token_ids`` asks for.
    """

    top: tuple[Alternative, ...] = ()


class PromptLogprobs(_Frozen):
    """Log probabilities of the tokens of a prompt, in columns: there may be tens of thousands.

    The first token has none, and is in no column.

    Args:
        token_ids: ``[tokens]``.
        logprobs: ``[tokens]``.
        ranks: of the tokens by their probabilities, 1 for the likeliest; ``[tokens]``.
        top_ids: the likeliest in the place of each, best first; ``[tokens, alternatives]``.
        top_logprobs: theirs; ``[tokens, alternatives]``.
        texts: of all these tokens by their ids, as ``Alternative.token`` gives them.
        utf8: the bytes of those whose text does not tell them.
    """

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    ranks: tuple[int, ...] = ()
    top_ids: tuple[tuple[int, ...], ...] = ()
    top_logprobs: tuple[tuple[float, ...], ...] = ()
    texts: dict[int, str] = {}
    utf8: dict[int, tuple[int, ...]] = {}

    def alternative(self, token_id: int, logprob: float) -> Alternative:
        """One of the tokens, in some place."""
        text = self.texts[token_id]
        utf8 = self.utf8[token_id] if token_id in self.utf8 else tuple(text.encode())
        return Alternative.model_construct(token_id=token_id, token=text, utf8=utf8, logprob=logprob)


class ToolCallDelta(_Frozen):
    """A piece of a call; ``id`` and ``name`` come in its first piece, the arguments' JSON in all."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Chunk(_Frozen):
    """A piece of an answer.

    Args:
        text: the next piece; empty in a chunk that only finishes.
        index: which choice it belongs to.
        token_ids: of this piece, when they were asked for.
        logprobs: of the tokens whose text this piece brings, when they were asked for.
        prompt_token_ids: in the first chunk of all, beside the new tokens'.
        prompt_logprobs: in the first chunk of all, when they were asked for.
        tool_calls: the calls' next pieces.
        finish_reason: set in the last chunk of a choice, and only there.
        choice_usage: of this choice so far, when ``continuous_usage_stats`` asks for it.
        usage: set in the last chunk of all choices; the prompt counts once.
        timings: beside ``usage``.
        unenforced: in the first chunk: keywords of the request's JSON schemas that are not enforced.
        schema_valid: beside ``usage``, where ``unenforced`` is not empty: whether every choice fits.
    """

    text: str = ""
    index: int = 0
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_token_ids: tuple[int, ...] = ()
    prompt_logprobs: PromptLogprobs | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    choice_usage: Usage | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    unenforced: tuple[str, ...] = ()
    schema_valid: bool | None = None

    def to_tensors(self) -> dict[str, Array]:
        """``text`` and ``chunk``; the text is not repeated in the JSON."""
        rest = self.model_dump_json(exclude={"text"}, exclude_defaults=True)
        return {"text": tensors.pack(tensors.TEXT, [self.text]), "chunk": tensors.pack(tensors.CHUNK, [rest])}

    @classmethod
    def from_tensors(cls, arrays: Mapping[str, Array]) -> Self:
        """The inverse of ``to_tensors``."""
        rest = cls.model_validate_json(arrays["chunk"].item())
        return rest.model_copy(update={"text": arrays["text"].item().decode()})


class _Report(_Frozen):
    """An answer that is no text: ``text`` is empty, ``chunk`` holds the JSON."""

    def to_tensors(self) -> dict[str, Array]:
        """``text`` and ``chunk``."""
        chunk = tensors.pack(tensors.CHUNK, [self.model_dump_json()])
        return {"text": tensors.pack(tensors.TEXT, [""]), "chunk": chunk}

    @classmethod
    def from_tensors(cls, arrays: Mapping[str, Array]) -> Self:
        """The inverse of ``to_tensors``."""
        return cls.model_validate_json(arrays["chunk"].item())


class Tokens(_Report):
    """The answer to ``op=tokenize`` and ``op=detokenize``.

    Args:
        token_ids: with every control token, and the places of media expanded.
        text: what they stand for, control tokens included.
        pieces: what each stands for alone.
        begins: whether the first is the one that the model puts before every text.
        context_length: tokens, prompt and answer together.
    """

    token_ids: tuple[int, ...]
    text: str
    pieces: tuple[str, ...]
    context_length: int
    begins: bool = False


class TokenizerInfo(_Report):
    """The answer to ``op=tokenizer_info``.

    Args:
        config: the checkpoint's ``tokenizer_config.json``, with its chat template as ``chat_template``
            and the context length, tokens, as ``model_max_length``.
    """

    config: dict[str, Any]


class ModelInfo(_Report):
    """The answer to ``op=describe``: what is served, and on what.

    Args:
        model: the checkpoint's name: a hub id, or the folder's last part.
        variants: other models that are served from the same tensors, by the names a request may use.
        created: Unix time of loading, seconds.
        context_length: tokens, prompt and answer together.
        memory_bytes: the weights, as loaded.
        running, waiting: requests at this moment.
    """

    model: str
    variants: tuple[str, ...] = ()
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
