"""A chat request as a call to the engine."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import gemma_wire as wire
from gemma_gateway.generation import (
    EngineCall,
    grammar_param_names,
    option_fields,
    request_fields,
    to_grammar,
    to_wire_tool,
)
from gemma_gateway.media.loader import MediaReference, read_audio, read_images
from gemma_gateway.schema.chat import ChatRequest
from gemma_gateway.schema.messages import (
    AssistantMessage,
    AudioContentPart,
    AudioUrlContentPart,
    ChatMessage,
    CustomToolCall,
    FileContentPart,
    ImageContentPart,
    MessageToolCall,
    ReasoningContentPart,
    RefusalContentPart,
    TextContentPart,
    ToolMessage,
)
from gemma_gateway.schema.tools import CustomTool, FunctionTool, JsonObjectFormat, JsonSchemaFormat
from gemma_gateway.settings import GatewaySettings
from gemma_gateway.worker_thread import in_thread

ContentPart = (
    TextContentPart
    | RefusalContentPart
    | ReasoningContentPart
    | ImageContentPart
    | AudioContentPart
    | AudioUrlContentPart
    | FileContentPart
)

_LARGE: Final = 200
"""Messages and parts that are converted in about a millisecond; more of them are converted in a thread."""


class WireConversation(NamedTuple):
    """Messages in the wire's form, the files in them, and the ``EngineCall.param_names`` of all of it."""

    messages: tuple[wire.Message, ...]
    images: tuple[bytes, ...]
    audio: tuple[bytes, ...]
    param_names: dict[str, str]


async def parse(body: ChatRequest, settings: GatewaySettings, model: str | None) -> EngineCall:
    """The call to the engine that a chat request asks for.

    Args:
        body: the request.
        settings: the limits on files.
        model: value of ``wire.Options.model``.

    Raises:
        BadRequest: an image or audio file is refused.
    """
    conversation = await convert_messages(body.messages, settings)
    callable_tools = [i for i, tool in enumerate(body.tools) if tool.name in body.callable_names]
    grammar, grammar_names = _grammar(body)
    request = wire.Request(
        messages=conversation.messages,
        images=conversation.images,
        audio=conversation.audio,
        max_tokens=body.limit,
        **request_fields(body),
        options=wire.Options(
            **option_fields(body),
            model=model,
            n=body.n or 1,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            prompt_logprobs=body.prompt_logprobs,
            prediction=(body.prediction.text or None) if body.prediction else None,
            grammar=grammar,
            tools=tuple(to_wire_tool(body.tools[i].definition) for i in callable_tools),
            tool_choice="required" if body.must_call else "auto",
            parallel_tool_calls=body.parallel_tool_calls and not body.names_tool,
            add_generation_prompt=body.begins_turn,
            continue_final_message=body.continues,
        ),
    )
    return EngineCall(request, conversation.param_names | grammar_names | _param_names(body, callable_tools))


def _param_names(body: ChatRequest, callable_tools: Sequence[int]) -> dict[str, str]:
    names = tool_param_names(body.tools, callable_tools)
    if body.max_completion_tokens is not None:
        names["max_tokens"] = "max_completion_tokens"
    if body.top_logprobs is not None:
        names["logprobs"] = "top_logprobs"
    return names


def _grammar(body: ChatRequest) -> tuple[wire.Grammar | None, dict[str, str]]:
    match body.response_format:
        case JsonObjectFormat(schema_=schema, value=value) if schema or value:
            names = grammar_param_names(f"response_format.{'schema' if schema else 'value'}")
            return wire.JsonGrammar(json_schema=schema or value or {}), names
        case JsonObjectFormat():
            return wire.JsonGrammar(json_schema={"type": "object"}), grammar_param_names("response_format")
        case JsonSchemaFormat(json_schema=named):
            names = grammar_param_names("response_format.json_schema.schema")
            return wire.JsonGrammar(json_schema=named.schema_, strict=named.strict or False), names
    return to_grammar(body)


def tool_param_names(tools: Sequence[FunctionTool | CustomTool], shown: Sequence[int]) -> dict[str, str]:
    """``EngineCall.param_names`` of the tools that the model sees.

    Args:
        tools: of the request.
        shown: the indices of those that the model sees.
    """
    names = {}
    for position, i in enumerate(shown):
        names[f"tools[{position}]"] = f"tools[{i}].{tools[i].type}"
        names[f"tools[{position}].custom.definition"] = f"tools[{i}].custom.format.grammar.definition"
    return names


async def convert_messages(messages: Sequence[ChatMessage], settings: GatewaySettings) -> WireConversation:
    """A conversation in the wire's form, with its files loaded.

    Raises:
        BadRequest: an image or audio file is refused.
    """
    work = partial(_convert, messages)
    conversation, images, audio = await in_thread(work) if _is_large(messages) else work()
    return conversation._replace(
        images=await read_images(images, settings), audio=await read_audio(audio, settings)
    )


def _is_large(messages: Sequence[ChatMessage]) -> bool:
    parts = sum(len(message.content) for message in messages if isinstance(message.content, list))
    return len(messages) + parts > _LARGE


def _convert(
    messages: Sequence[ChatMessage],
) -> tuple[WireConversation, list[MediaReference], list[MediaReference]]:
    """A conversation without its files, and the references to its images and audio."""
    images, audio = list(_images(messages)), list(_audio(messages))
    names = {f"images[{i}]": param for i, (param, _) in enumerate(images)}
    names |= {f"audio[{i}]": param for i, (param, _) in enumerate(audio)}
    names |= {"images": "messages", "audio": "messages", "prompt": "messages"}
    converted = tuple(_message(message) for message in messages)
    return WireConversation(converted, (), (), names | _tool_call_names(messages)), images, audio


def _tool_call_names(messages: Sequence[ChatMessage]) -> dict[str, str]:
    return {
        f"messages[{turn}].tool_calls[{i}].{name}": f"messages[{turn}].tool_calls[{i}].function.{name}"
        for turn, message in enumerate(messages)
        if isinstance(message, AssistantMessage)
        for i in range(len(message.tool_calls or ()))
        for name in ("name", "arguments")
    }


def _parts(messages: Sequence[ChatMessage]) -> Iterator[tuple[str, ContentPart]]:
    """Every part of every message, with its path."""
    for turn, message in enumerate(messages):
        if isinstance(message.content, list):
            for index, part in enumerate(message.content):
                yield f"messages[{turn}].content[{index}]", part


def _images(messages: Sequence[ChatMessage]) -> Iterator[MediaReference]:
    for path, part in _parts(messages):
        if isinstance(part, ImageContentPart):
            yield f"{path}.image_url.url", part.image_url.url
        elif isinstance(part, FileContentPart):
            yield f"{path}.file.file_data", part.file.file_data


def _audio(messages: Sequence[ChatMessage]) -> Iterator[MediaReference]:
    for path, part in _parts(messages):
        if isinstance(part, AudioContentPart):
            yield f"{path}.input_audio.data", part.input_audio.data
        elif isinstance(part, AudioUrlContentPart):
            yield f"{path}.audio_url.url", part.audio_url.url


def _message(message: ChatMessage) -> wire.Message:
    name = None if isinstance(message, ToolMessage) else message.name or None
    if isinstance(message, AssistantMessage):
        calls = tuple(map(_tool_call, message.tool_calls or ()))
        return wire.Message(
            role="assistant", content=_assistant_content(message), name=name, tool_calls=calls
        )
    role = "system" if message.role == "developer" else message.role
    call_id = message.tool_call_id if isinstance(message, ToolMessage) else None
    return wire.Message(role=role, content=_content(message.content), name=name, tool_call_id=call_id)


def _tool_call(call: MessageToolCall | CustomToolCall) -> wire.ToolCall:
    if isinstance(call, CustomToolCall):
        return wire.ToolCall(id=call.id, name=call.custom.name, arguments=call.custom.input, custom=True)
    return wire.ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)


def _assistant_content(message: AssistantMessage) -> str | tuple[wire.Part, ...]:
    """The content of an assistant message, followed by its refusal if there is one."""
    if message.refusal is None:
        return _content(message.content)
    if not message.content:
        return message.refusal
    content = _content(message.content)
    parts = (wire.TextPart(text=content),) if isinstance(content, str) else content
    return (*parts, wire.TextPart(text=message.refusal))


def _content(content: str | Sequence[ContentPart]) -> str | tuple[wire.Part, ...]:
    if isinstance(content, str):
        return content
    return tuple(_part(part) for part in content if not isinstance(part, ReasoningContentPart)) or ""


def _part(part: ContentPart) -> wire.Part:
    match part:
        case TextContentPart():
            return wire.TextPart(text=part.text)
        case RefusalContentPart():
            return wire.TextPart(text=part.refusal)
        case AudioContentPart() | AudioUrlContentPart():
            return wire.AudioPart()
    return wire.ImagePart()
