"""From a request to the model and back: what every family of endpoints does alike."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import gemma_wire as wire
from gemma_gateway.engine import Engine
from gemma_gateway.errors import ApiError, from_wire
from gemma_gateway.schema.guided import Guided
from gemma_gateway.schema.sampling import Sampled
from gemma_gateway.schema_report import SchemaReport
from gemma_gateway.served import Served
from gemma_wire.request import MAX_PROMPT_CHARACTERS

Chunks = AsyncGenerator[wire.Chunk, None]
T = TypeVar("T")
GREEDY_TOP_P: Final = 1e-6
"""0 asks for the smallest set of tokens, which is the likeliest one; the wire wants more than 0."""
_GRAMMAR_FIELDS: Final = (
    "grammar",
    "grammar.json_schema",
    "grammar.pattern",
    "grammar.choices",
    "grammar.text",
)


@dataclass(frozen=True)
class Question:
    """A request in the model's terms, and the way back to the client's.

    Args:
        request: what the model is asked; generations are always streamed, a whole answer folds the stream.
        params: the model's field → the client's parameter, where the two differ. What lies inside a field
            is found under the parameter.
        prompt: the parameter that is to blame when the context is too short.
    """

    request: wire.Request
    params: Mapping[str, str] = field(default_factory=dict)
    prompt: str = "messages"

    def blame(self, error: wire.WireError) -> ApiError:
        """The model's error, about the parameter that the client knows."""
        if isinstance(error, wire.ContextLengthExceeded):
            return from_wire(error, self.prompt)
        param = self._param(error.field.removeprefix("options").removeprefix("."))
        if isinstance(error, wire.InvalidRequest) and param:
            # the wire's clause follows the field's name, which is not the client's
            error = wire.InvalidRequest(f"Invalid '{param}': {error.message.rstrip('.')}.", error.field)
        return from_wire(error, param or None)

    def _param(self, name: str) -> str:
        known = (key for key in self.params if name == key or name.startswith((f"{key}.", f"{key}[")))
        longest = max(known, key=len, default="")
        return self.params.get(longest, "") + name[len(longest) :]


async def ask(
    engine: Engine,
    served: Served,
    question: Question,
    request_id: str,
    cache_salt: str | None,
    report: SchemaReport,
) -> Chunks:
    """The model's chunks; closing the generator cancels the generation.

    Args:
        engine: is asked.
        served: what is known of it.
        question: what it is asked.
        request_id: for the log.
        cache_salt: of the API key, where there are keys: nothing is reused of what other keys have asked.
        report: is told what the chunks say about schemas, before they are yielded.

    Raises:
        ApiError: what the model's error means to the client.
    """
    _check_length(question)
    request = _salted(question.request, cache_salt)
    try:
        async with aclosing(engine.generate(request, request_id)) as chunks:
            async for chunk in chunks:
                report.note(chunk)
                yield chunk
    except wire.WireError as error:
        if isinstance(error, wire.Unavailable):
            served.forget()
        raise question.blame(error) from error


def _salted(request: wire.Request, cache_salt: str | None) -> wire.Request:
    """With the key's salt; a salt that the client gave divides the key's own caches further."""
    if cache_salt is None:
        return request
    both = f"{cache_salt}\0{request.options.cache_salt or ''}"
    salt = hashlib.sha256(both.encode()).hexdigest()
    return request.model_copy(update={"options": request.options.model_copy(update={"cache_salt": salt})})


async def ask_tokens(engine: Engine, question: Question) -> wire.Tokens:
    """The tokens of a prompt, or the text of tokens.

    Raises:
        ApiError: what the model's error means to the client.
    """
    _check_length(question)
    try:
        return await engine.tokens(question.request)
    except wire.WireError as error:
        raise question.blame(error) from error


def _check_length(question: Question) -> None:
    """Packing and sending very long texts takes the event loop's time, and the model would refuse them.

    LangChain and LiteLLM recognise an overflow by "maximum context length is" and "prompt is too long".
    """
    if (size := question.request.text_size) > MAX_PROMPT_CHARACTERS:
        sentence = (
            f"The prompt is too long: it has {size:,} characters; whatever the model's "
            f"maximum context length is, {MAX_PROMPT_CHARACTERS:,} are the limit."
        )
        raise question.blame(wire.ContextLengthExceeded(sentence))


async def together(sources: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[tuple[int, T], None]:
    """What all sources yield, as it comes, each item with the number of its source.

    All run at the same time, none further ahead than by one item that nobody took yet. The first error ends
    them all, and so does closing the generator.
    """
    ready: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue(1)

    async def pump(number: int, source: AsyncGenerator[T, None]) -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    await ready.put((number, item))
            await ready.put(None)
        except Exception as error:  # the consumer's to raise
            await ready.put(error)

    tasks = [asyncio.create_task(pump(number, source)) for number, source in enumerate(sources)]
    running = len(tasks)
    try:
        while running:
            match await ready.get():
                case None:
                    running -= 1
                case Exception() as error:
                    raise error
                case item:
                    yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def sampling(body: Sampled) -> dict[str, Any]:
    """The fields of a ``wire.Request`` that say how the tokens are chosen; ``options`` is not among them."""
    top_p = body.top_p if body.top_p is None else max(body.top_p, GREEDY_TOP_P)
    temperature = 0.0 if body.do_sample is False else body.temperature
    return {"temperature": temperature, "top_p": top_p, "stream": True}


def options(body: Sampled) -> dict[str, Any]:
    """The fields of a ``wire.Options`` that chat completions and plain completions have in common."""
    return {
        "seed": body.seed,
        "top_k": None if body.top_k is None else max(body.top_k, 0),
        "min_p": body.min_p or 0.0,
        "repetition_penalty": body.repetition_penalty or body.repeat_penalty or 1.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "presence_penalty": body.presence_penalty or 0.0,
        "logit_bias": {int(token_id): bias for token_id, bias in (body.logit_bias or {}).items()},
        "stop": tuple(body.stop or ()),
        "stop_token_ids": tuple(body.stop_token_ids or ()),
        "min_tokens": body.min_tokens or 0,
        "ignore_eos": body.ignore_eos or False,
        "logprob_token_ids": tuple(body.logprob_token_ids or ()),
        "return_token_ids": body.return_token_ids or False,
        "continuous_usage_stats": body.continuous_usage,
        "skip_special_tokens": body.skip_special_tokens is not False,
        "cache_salt": body.cache_salt or None,
    }


def structured(body: Guided) -> tuple[wire.Grammar | None, dict[str, str]]:
    """The grammar that is asked for, and the way back from the wire's fields to the parameter."""
    if not body.forms:
        return None, {}
    ((param, kind, value),) = body.forms
    return _GRAMMARS[kind](value), grammar_params(param)


_GRAMMARS: dict[str, Callable[[Any], wire.Grammar]] = {
    "json": lambda schema: wire.JsonGrammar(json_schema=schema),
    "json_object": lambda _: wire.JsonGrammar(json_schema={"type": "object"}),
    "regex": lambda pattern: wire.RegexGrammar(pattern=pattern),
    "choice": lambda choices: wire.ChoiceGrammar(choices=tuple(choices)),
    "grammar": lambda text: wire.LarkGrammar(text=text),
}


def grammar_params(param: str) -> dict[str, str]:
    """The way back from a grammar's fields to the parameter that asked for it."""
    return dict.fromkeys(_GRAMMAR_FIELDS, param)
