"""The model's responses, as typed values and as tensors."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from gemma_wire import tensors
from gemma_wire.tensors import Array

FinishReason = Literal["stop", "length", "tool_calls"]


class _Frozen(BaseModel):
    # Unknown fields are ignored: the model may be newer than the gateway.
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Usage(_Frozen):
    """Token counts by the model's tokenizer.

    Args:
        cached_tokens: of the prompt, found in the prefix cache.
        accepted_prediction_tokens: of the prediction, drafted and in the generated text; ``None``: no
            prediction.
        rejected_prediction_tokens: the same, but not in the generated text.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class Timings(_Frozen):
    """Durations in seconds: in the queue, prefill of the prompt, decoding of the new tokens."""

    queued: float
    prefill: float
    decode: float


class Alternative(_Frozen):
    """A token with its log probability.

    Args:
        token: as text; incomplete UTF-8 is written as U+FFFD.
        utf8: the token's bytes.
        logprob: natural logarithm of its probability, before temperature and truncation; -9999 for zero.
    """

    token_id: int
    token: str
    utf8: tuple[int, ...]
    logprob: float


class TokenLogprob(Alternative):
    """A token of the prompt or of the generated text.

    Args:
        top: the most likely tokens at its position, best first, or those in ``logprob_token_ids``.
    """

    top: tuple[Alternative, ...] = ()


class PromptLogprobs(_Frozen):
    """Log probabilities of the tokens of a prompt, in columns, since there may be tens of thousands.

    The first token has no log probability and is in no column.

    Args:
        token_ids: ``[tokens]``.
        logprobs: ``[tokens]``.
        ranks: of the tokens by probability, 1 for the most likely; ``[tokens]``.
        top_ids: the most likely tokens at each position, best first; ``[tokens, alternatives]``.
        top_logprobs: their log probabilities; ``[tokens, alternatives]``.
        texts: token id → text, as in ``Alternative.token``, for all these tokens.
        utf8: token id → bytes, for tokens whose bytes are not their text.
    """

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    ranks: tuple[int, ...] = ()
    top_ids: tuple[tuple[int, ...], ...] = ()
    top_logprobs: tuple[tuple[float, ...], ...] = ()
    texts: dict[int, str] = {}
    utf8: dict[int, tuple[int, ...]] = {}

    def alternative(self, token_id: int, logprob: float) -> Alternative:
        """One of the tokens with its log probability at some position."""
        text = self.texts[token_id]
        utf8 = self.utf8[token_id] if token_id in self.utf8 else tuple(text.encode())
        return Alternative.model_construct(token_id=token_id, token=text, utf8=utf8, logprob=logprob)


class ToolCallDelta(_Frozen):
    """A part of a tool call.

    Args:
        index: of the call.
        id, name: in its first part.
        arguments: a part of the arguments' JSON, or of the input of a custom tool.
        custom: whether it is a call of a custom tool.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    custom: bool = False


class Chunk(_Frozen):
    """A part of a response.

    Args:
        text: the next text; may be empty.
        index: the choice that it belongs to.
        token_ids: of this chunk, if requested.
        logprobs: of the tokens whose text is in this chunk, if requested.
        prompt_token_ids: in the first chunk of the response, if token ids are requested.
        prompt_logprobs: in the first chunk of the response, if requested.
        tool_calls: the next parts of tool calls.
        finish_reason: set in the last chunk of a choice, and only there.
        stop_string: in the same chunk, the string of ``stop`` that ended the choice, if one did.
        choice_usage: of this choice so far, if ``continuous_usage_stats`` is set.
        usage: set in the last chunk of the response; the prompt counts once.
        timings: in the same chunk as ``usage``.
        unenforced: in the first chunk: keywords of the request's JSON schemas that are not enforced.
        schema_valid: in the same chunk as ``usage``, if ``unenforced`` was not empty: whether every choice is
            valid.
        number: the place among the chunks of the response, from 0, if the request names a subscription.
    """

    text: str = ""
    index: int = 0
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_token_ids: tuple[int, ...] = ()
    prompt_logprobs: PromptLogprobs | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None
    stop_string: str | None = None
    choice_usage: Usage | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    unenforced: tuple[str, ...] = ()
    schema_valid: bool | None = None
    number: int | None = None

    def to_tensors(self) -> dict[str, Array]:
        """The tensors ``text`` and ``chunk``; the JSON does not contain the text."""
        rest = self.model_dump_json(exclude={"text"}, exclude_defaults=True)
        return {"text": tensors.pack(tensors.TEXT, [self.text]), "chunk": tensors.pack(tensors.CHUNK, [rest])}

    @classmethod
    def from_tensors(cls, arrays: Mapping[str, Array]) -> Self:
        """The inverse of ``to_tensors``."""
        rest = cls.model_validate_json(arrays["chunk"].item())
        return rest.model_copy(update={"text": arrays["text"].item().decode()})


class _JsonResponse(_Frozen):
    """A response without text: ``text`` is empty, ``chunk`` has the JSON."""

    def to_tensors(self) -> dict[str, Array]:
        """The tensors ``text`` and ``chunk``."""
        chunk = tensors.pack(tensors.CHUNK, [self.model_dump_json()])
        return {"text": tensors.pack(tensors.TEXT, [""]), "chunk": chunk}

    @classmethod
    def from_tensors(cls, arrays: Mapping[str, Array]) -> Self:
        """The inverse of ``to_tensors``."""
        return cls.model_validate_json(arrays["chunk"].item())


class ReceivedChunk(NamedTuple):
    """A chunk of one of the requests that name a subscription."""

    receiver: int
    chunk: Chunk


class ChunkBatch(_JsonResponse):
    """The response to ``op=subscribe``: chunks of several requests, in the order of each request."""

    chunks: tuple[ReceivedChunk, ...] = ()

    def to_tensors(self) -> dict[str, Array]:
        """The tensors ``text`` and ``chunk``."""
        chunk = tensors.pack(tensors.CHUNK, [self.model_dump_json(exclude_defaults=True)])
        return {"text": tensors.pack(tensors.TEXT, [""]), "chunk": chunk}


class Tokens(_JsonResponse):
    """The response to ``op=tokenize`` and ``op=detokenize``.

    Args:
        token_ids: including control tokens and the soft-token placeholders of media.
        text: of all tokens, with control tokens written out.
        pieces: the text of each token.
        begins: whether the first token is the BOS token.
        context_length: tokens of prompt and generated text together.
    """

    token_ids: tuple[int, ...]
    text: str
    pieces: tuple[str, ...]
    context_length: int
    begins: bool = False


class TokenizerInfo(_JsonResponse):
    """The response to ``op=tokenizer_info``.

    Args:
        config: the checkpoint's ``tokenizer_config.json``, with its chat template as ``chat_template``
            and the context length, tokens, as ``model_max_length``.
    """

    config: dict[str, Any]


class ModelInfo(_JsonResponse):
    """The response to ``op=describe``: which models are served, and how.

    Args:
        model: the checkpoint's name: a hub id, or the last part of its path.
        variants: names of the nested models that are served from the same tensors.
        created: Unix time of loading, seconds.
        context_length: tokens of prompt and generated text together.
        memory_bytes: of the loaded weights.
        audio_seconds: the longest audio that the model hears as one clip, if it supports audio.
        audio_tokens: the number of tokens of a clip in the prompt.
        running, waiting: the current number of requests.
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
    audio_seconds: float | None = None
    audio_tokens: int | None = None
    running: int = 0
    waiting: int = 0
