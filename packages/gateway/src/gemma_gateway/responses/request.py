"""A request to ``/v1/responses`` as calls to the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import gemma_wire as wire
from gemma_gateway.generation import (
    EngineCall,
    grammar_param_names,
    option_fields,
    request_fields,
    to_grammar,
    to_wire_tool,
)
from gemma_gateway.responses.conversation import PlacedItem, Turn, load_files, param_names, to_turns
from gemma_gateway.schema.response_items import InputMessage
from gemma_gateway.schema.response_tools import (
    ResponseFunctionTool,
    ResponseGrammarInput,
    ResponseJsonSchema,
    UsedTool,
)
from gemma_gateway.schema.responses import ResponsesRequest
from gemma_gateway.schema.tools import JsonObjectFormat
from gemma_gateway.settings import GatewaySettings
from gemma_gateway.worker_thread import in_thread

_LARGE: Final = 200
"""Items that are converted in about a millisecond; more of them are converted in a thread."""


@dataclass(frozen=True)
class ResponseCall:
    """What the engine is to do, for the complete conversation or for the newer part of it.

    Args:
        body: the request.
        turns: of the conversation, with their files.
        model: value of ``wire.Options.model``.
    """

    body: ResponsesRequest
    turns: Sequence[Turn]
    model: str | None

    @property
    def droppable(self) -> list[int]:
        """The places of the turns that may be left out, oldest first.

        Instructions, the last message of the user and the last turn are always kept.
        """
        last = max((i for i, turn in enumerate(self.turns) if turn.role == "user"), default=0)
        kept = {last, len(self.turns) - 1}
        return [i for i, turn in enumerate(self.turns) if turn.role != "system" and i not in kept]

    def without(self, dropped: int) -> EngineCall:
        """The call to the engine without this number of the droppable turns."""
        left_out = set(self.droppable[:dropped])
        turns = [turn for i, turn in enumerate(self.turns) if i not in left_out]
        request = wire.Request(
            messages=tuple(message for turn in turns for message in turn.messages),
            images=tuple(image for turn in turns for image in turn.images.contents),
            audio=tuple(audio for turn in turns for audio in turn.audio.contents),
            max_tokens=self.body.max_output_tokens,
            **request_fields(self.body),
            options=self._options,
        )
        return EngineCall(request, param_names(turns) | _param_names(self.body), "input")

    @property
    def _options(self) -> wire.Options:
        body = self.body
        return wire.Options(
            **option_fields(body),
            model=self.model,
            logprobs=body.logprobs,
            grammar=_grammar(body)[0],
            tools=tuple(_to_wire_tool(tool) for _, tool in _shown(body)),
            tool_choice="required" if body.must_call else "auto",
            parallel_tool_calls=body.parallel_tool_calls and not body.names_tool,
        )


async def parse(
    body: ResponsesRequest, items: Sequence[PlacedItem], settings: GatewaySettings, model: str | None
) -> ResponseCall:
    """The calls to the engine that a request may lead to.

    Args:
        body: the request.
        items: the complete input.
        settings: the limits on files.
        model: value of ``wire.Options.model``.

    Raises:
        BadRequest: a file is refused, or calls and results do not match.
    """
    work = partial(to_turns, body.instructions, items)
    turns = await in_thread(work) if len(items) > _LARGE else work()
    await load_files(turns, settings)
    return ResponseCall(body, turns, model)


def _shown(body: ResponsesRequest) -> list[tuple[int, UsedTool]]:
    """The tools that the model sees."""
    return [(i, tool) for i, tool in body.used_tools if tool.name in body.callable_names]


def _to_wire_tool(tool: UsedTool) -> wire.Tool:
    if isinstance(tool, ResponseFunctionTool):
        return to_wire_tool(tool)
    custom = wire.CustomInput()
    if isinstance(tool.format, ResponseGrammarInput):
        custom = wire.CustomInput(syntax=tool.format.syntax, definition=tool.format.definition)
    return wire.Tool(name=tool.name, description=tool.description, custom=custom)


def placed_items(body: ResponsesRequest) -> list[PlacedItem]:
    """The items of the request's input, each with its parameter."""
    if isinstance(body.input, str):
        return [("input", InputMessage(role="user", content=body.input))]
    return [(f"input[{i}]", item) for i, item in enumerate(body.input)]


def _param_names(body: ResponsesRequest) -> dict[str, str]:
    shown = [i for i, _ in _shown(body)]
    names = {f"tools[{position}]": f"tools[{i}]" for position, i in enumerate(shown)}
    names |= {f"tools[{position}].custom": f"tools[{i}].format" for position, i in enumerate(shown)}
    names |= {"max_tokens": "max_output_tokens", "logprobs": "top_logprobs"}
    return names | _grammar(body)[1]


def _grammar(body: ResponsesRequest) -> tuple[wire.Grammar | None, dict[str, str]]:
    match body.text.format:
        case JsonObjectFormat(schema_=schema, value=value):
            path = "text.format" + (".schema" if schema else ".value" if value else "")
            any_object = {"type": "object"}
            return wire.JsonGrammar(json_schema=schema or value or any_object), grammar_param_names(path)
        case ResponseJsonSchema(schema_=schema, strict=strict):
            names = grammar_param_names("text.format.schema")
            return wire.JsonGrammar(json_schema=schema, strict=strict or False), names
    return to_grammar(body)
