"""A request of the Messages API as a call to the engine."""

from functools import partial
from typing import Any, Final

import gemma_wire as wire
from gemma_gateway.anthropic.conversation import WireMessages
from gemma_gateway.anthropic.schema import ClientTool, CountTokensRequest, MessagesRequest
from gemma_gateway.errors import BadRequest
from gemma_gateway.generation import EngineCall, grammar_param_names
from gemma_gateway.media.loader import read_images
from gemma_gateway.settings import GatewaySettings
from gemma_gateway.worker_thread import in_thread
from gemma_wire.messages import MAX_MESSAGES

_LARGE: Final = 200
"""Turns and blocks that are converted in about a millisecond; more of them are converted in a thread."""


async def parse(body: MessagesRequest, settings: GatewaySettings, model: str | None) -> EngineCall:
    """The call to the engine that generates the message.

    Args:
        body: the request.
        settings: the limits on images.
        model: value of ``wire.Options.model``.

    Raises:
        BadRequest: an image is refused, or there are too many results.
    """
    grammar, names = _grammar(body)
    options = {
        "stop": tuple(body.stop_sequences),
        "grammar": grammar,
        "tool_choice": "required" if body.must_call else "auto",
        "parallel_tool_calls": body.parallel_calls,
        "continuous_usage_stats": body.stream,  # a stream begins with the number of the prompt's tokens
        **({} if body.top_k is None else {"top_k": body.top_k}),
    }
    sampling = {"temperature": body.temperature, "top_p": body.top_p, "max_tokens": body.max_tokens}
    call = await _call(body, settings, model, options, {**sampling, "stream": True})
    return EngineCall(call.request, {**call.param_names, **names, "stop": "stop_sequences"})


async def parse_count(body: CountTokensRequest, settings: GatewaySettings, model: str | None) -> EngineCall:
    """The call to the engine that tokenizes the prompt of the same request.

    Raises:
        BadRequest: an image is refused, or there are too many results.
    """
    return await _call(body, settings, model, {"op": "tokenize"}, {})


async def _call(
    body: CountTokensRequest,
    settings: GatewaySettings,
    model: str | None,
    options: dict[str, Any],
    fields: dict[str, Any],
) -> EngineCall:
    """The call with these further options and fields."""
    conversation = await in_thread(partial(_convert, body)) if _is_large(body) else _convert(body)
    request = wire.Request(
        messages=tuple(conversation.messages),
        images=await read_images(conversation.images, settings),
        **fields,
        options=wire.Options(
            model=model,
            tools=tuple(_to_wire_tool(tool) for _, tool in body.shown_tools),
            add_generation_prompt=not body.continues,
            continue_final_message=body.continues,
            **options,
        ),
    )
    return EngineCall(request, conversation.param_names | _tool_names(body))


def _convert(body: CountTokensRequest) -> WireMessages:
    conversation = WireMessages()
    conversation.add_system(body.system, "system")
    for i, turn in enumerate(body.messages):
        conversation.add_turn(turn, f"messages[{i}]")
    conversation.param_names["images"] = "messages"
    if (count := len(conversation.messages)) > MAX_MESSAGES:
        sentence = (
            f"The messages and tool_result blocks are {count:,} together; {MAX_MESSAGES:,} are allowed."
        )
        raise BadRequest(sentence, param="messages")
    return conversation


def _is_large(body: CountTokensRequest) -> bool:
    blocks = sum(len(turn.content) for turn in body.messages if isinstance(turn.content, list))
    return len(body.messages) + blocks > _LARGE


def _to_wire_tool(tool: ClientTool) -> wire.Tool:
    return wire.Tool(
        name=tool.name,
        description=tool.description,
        parameters=tool.input_schema or None,
        strict=tool.strict or False,
    )


def _tool_names(body: CountTokensRequest) -> dict[str, str]:
    names = {}
    for position, (i, _) in enumerate(body.shown_tools):
        names[f"tools[{position}]"] = f"tools[{i}]"
        names[f"tools[{position}].parameters"] = f"tools[{i}].input_schema"
    return names


def _grammar(body: MessagesRequest) -> tuple[wire.Grammar | None, dict[str, str]]:
    if body.format is None:
        return None, {}
    param, form = body.format
    return wire.JsonGrammar(json_schema=form.schema_, strict=True), grammar_param_names(f"{param}.schema")
