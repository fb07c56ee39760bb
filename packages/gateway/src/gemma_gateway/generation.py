"""From a parsed request to the engine and back: the steps that all endpoints share."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import gemma_wire as wire
from gemma_gateway.engine_client import EngineClient
from gemma_gateway.errors import ApiError, from_wire
from gemma_gateway.json_schema_report import JsonSchemaReport
from gemma_gateway.model_registry import ModelRegistry
from gemma_gateway.schema.sampling import SamplingRequest
from gemma_gateway.schema.structured_outputs import StructuredOutputParams
from gemma_gateway.schema.tools import CustomDefinition, FunctionDefinition, GrammarInput, TextInput
from gemma_wire.request import MAX_PROMPT_CHARACTERS

Chunks = AsyncGenerator[wire.Chunk, None]
T = TypeVar("T")
_FORWARDED: Final = (
    *wire.SamplingParams.model_fields,
    "stop",
    "stop_token_ids",
    "min_tokens",
    "ignore_eos",
    "logprob_token_ids",
    "return_token_ids",
    "skip_special_tokens",
    "cache_salt",
)
"""Parameters that have the same name and meaning in the request schemas and in ``wire.Options``."""
_GRAMMAR_FIELDS: Final = (
    "grammar",
    "grammar.json_schema",
    "grammar.pattern",
    "grammar.choices",
    "grammar.text",
)


@dataclass(frozen=True)
class EngineCall:
    """A request to the engine, and how its field names map back to the client's parameters.

    Args:
        request: what the engine receives. Generations are always streamed; a complete response is built from
            the stream.
        param_names: engine field → client parameter, where the two differ. It also applies to nested fields.
        prompt_param: the parameter that an error names when the context is too short.
    """

    request: wire.Request
    param_names: Mapping[str, str] = field(default_factory=dict)
    prompt_param: str = "messages"

    def to_api_error(self, error: wire.WireError) -> ApiError:
        """The engine's error, with the name of the parameter that the client knows."""
        if isinstance(error, wire.ContextLengthExceeded):
            return from_wire(error, self.prompt_param)
        param = self._param(error.field.removeprefix("options").removeprefix("."))
        if isinstance(error, wire.InvalidRequest) and param:
            # the engine's message is a clause about its field, so it needs the client's name in front
            error = wire.InvalidRequest(f"Invalid '{param}': {error.message.rstrip('.')}.", error.field)
        return from_wire(error, param or None)

    def _param(self, name: str) -> str:
        known = (key for key in self.param_names if name == key or name.startswith((f"{key}.", f"{key}[")))
        longest = max(known, key=len, default="")
        return self.param_names.get(longest, "") + name[len(longest) :]


async def generate(
    engine: EngineClient,
    models: ModelRegistry,
    call: EngineCall,
    request_id: str,
    cache_salt: str | None,
    report: JsonSchemaReport,
) -> Chunks:
    """The engine's chunks. Closing the generator cancels the generation.

    Args:
        engine: receives the call.
        models: is refreshed when the engine turns out to be unavailable.
        call: what the engine is to do.
        request_id: for the log.
        cache_salt: of the API key, if keys are configured; the prefix cache is not shared between keys.
        report: collects what the chunks report about JSON schemas, before they are yielded.

    Raises:
        ApiError: the engine's error in the client's terms.
    """
    _check_length(call)
    request = _with_salt(call.request, cache_salt)
    try:
        async with aclosing(engine.generate(request, request_id)) as chunks:
            async for chunk in chunks:
                report.update(chunk)
                yield chunk
    except wire.WireError as error:
        if isinstance(error, wire.Unavailable):
            models.forget()
        raise call.to_api_error(error) from error


def _with_salt(request: wire.Request, cache_salt: str | None) -> wire.Request:
    """The request with the API key's salt; a salt of the client divides the key's own cache further."""
    if cache_salt is None:
        return request
    both = f"{cache_salt}\0{request.options.cache_salt or ''}"
    salt = hashlib.sha256(both.encode()).hexdigest()
    return request.model_copy(update={"options": request.options.model_copy(update={"cache_salt": salt})})


async def fetch_tokens(engine: EngineClient, call: EngineCall) -> wire.Tokens:
    """The result of ``op=tokenize`` or ``op=detokenize``.

    Raises:
        ApiError: the engine's error in the client's terms.
    """
    _check_length(call)
    try:
        return await engine.tokens(call.request)
    except wire.WireError as error:
        raise call.to_api_error(error) from error


def _check_length(call: EngineCall) -> None:
    """Refuses a very long text here: packing and sending it would block the event loop in vain.

    LangChain and LiteLLM recognise an overflow by "maximum context length is" and "prompt is too long".
    """
    if (size := call.request.text_size) > MAX_PROMPT_CHARACTERS:
        sentence = (
            f"The prompt is too long: it has {size:,} characters; whatever the model's "
            f"maximum context length is, the limit is {MAX_PROMPT_CHARACTERS:,}."
        )
        raise call.to_api_error(wire.ContextLengthExceeded(sentence))


async def merge_streams(sources: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[tuple[int, T], None]:
    """The items of all sources in the order of their arrival, each with the number of its source.

    All sources run at the same time, each at most one item ahead of the consumer. The first error ends all of
    them, and so does closing the generator.
    """
    ready: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue(1)

    async def pump(number: int, source: AsyncGenerator[T, None]) -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    await ready.put((number, item))
            await ready.put(None)
        except Exception as error:  # raised by the consumer below
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


def request_fields(body: SamplingRequest) -> dict[str, Any]:
    """The fields of a ``wire.Request`` that say how tokens are chosen, besides ``options``."""
    temperature = 0.0 if body.do_sample is False else body.temperature
    return {"temperature": temperature, "top_p": body.top_p, "stream": True}


def option_fields(body: SamplingRequest) -> dict[str, Any]:
    """The fields of a ``wire.Options`` that all endpoints for generation share.

    A parameter that is not given is left out: its default is declared in ``gemma_wire.options``.
    """
    given = {name: value for name in _FORWARDED if (value := body.value(name)) is not None}
    return {**given, "continuous_usage_stats": body.continuous_usage}


def to_grammar(body: StructuredOutputParams) -> tuple[wire.Grammar | None, dict[str, str]]:
    """The grammar that a request asks for, and the ``param_names`` of its fields."""
    if not body.forms:
        return None, {}
    ((param, kind, value),) = body.forms
    return _GRAMMARS[kind](value), grammar_param_names(param)


_GRAMMARS: dict[str, Callable[[Any], wire.Grammar]] = {
    "json": lambda schema: wire.JsonGrammar(json_schema=schema),
    "json_object": lambda _: wire.JsonGrammar(json_schema={"type": "object"}),
    "regex": lambda pattern: wire.RegexGrammar(pattern=pattern),
    "choice": lambda choices: wire.ChoiceGrammar(choices=tuple(choices)),
    "grammar": lambda text: wire.LarkGrammar(text=text),
}


def grammar_param_names(param: str) -> dict[str, str]:
    """``param_names`` for all fields of a grammar that one parameter asks for."""
    return dict.fromkeys(_GRAMMAR_FIELDS, param)


def to_wire_tool(tool: FunctionDefinition | CustomDefinition) -> wire.Tool:
    """A function or a custom tool in the wire's form."""
    if isinstance(tool, CustomDefinition):
        return wire.Tool(name=tool.name, description=tool.description, custom=_custom_input(tool.format))
    return wire.Tool(
        name=tool.name,
        description=tool.description,
        parameters=tool.parameters or None,
        strict=tool.strict or False,
    )


def _custom_input(given: TextInput | GrammarInput) -> wire.CustomInput:
    if isinstance(given, TextInput):
        return wire.CustomInput()
    return wire.CustomInput(syntax=given.grammar.syntax, definition=given.grammar.definition)
