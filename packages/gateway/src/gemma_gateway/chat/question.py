"""A chat request as the question that the model is asked."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import gemma_wire as wire
from gemma_gateway.asking import Question, grammar_params, options, sampling, structured
from gemma_gateway.media import Place, read_audio, read_images
from gemma_gateway.schema.chat import ChatRequest
from gemma_gateway.schema.messages import (
    AssistantMessage,
    AudioPart,
    AudioUrlPart,
    FilePart,
    ImagePart,
    Message,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolMessage,
)
from gemma_gateway.schema.tools import FunctionTool, JsonObjectFormat, JsonSchemaFormat, NamedTool
from gemma_gateway.settings import Settings
from gemma_gateway.threads import in_thread

AnyPart = TextPart | RefusalPart | ReasoningPart | ImagePart | AudioPart | AudioUrlPart | FilePart

_MANY: Final = 200
"""Messages and parts that are converted in about a millisecond; more are converted in a thread."""


class Conversation(NamedTuple):
    """Messages in the model's terms, with the files in them, and the way back to the client's parameters."""

    messages: tuple[wire.Message, ...]
    images: tuple[bytes, ...]
    audio: tuple[bytes, ...]
    params: dict[str, str]


async def read(body: ChatRequest, settings: Settings, model: str | None) -> Question:
    """The question that a request asks.

    Args:
        body: the request.
        settings: the limits on files.
        model: which of the served models, as ``wire.Options`` wants it.

    Raises:
        BadRequest: about a picture or a sound.
    """
    said = await converse(body.messages, settings)
    callable_tools = [i for i, tool in enumerate(body.tools) if tool.function.name in body.callable_names]
    grammar, grammar_back = _grammar(body)
    request = wire.Request(
        messages=said.messages,
        images=said.images,
        audio=said.audio,
        max_tokens=body.limit,
        **sampling(body),
        options=wire.Options(
            **options(body),
            model=model,
            n=body.n or 1,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            prompt_logprobs=body.prompt_logprobs,
            grammar=grammar,
            tools=tuple(as_tool(body.tools[i]) for i in callable_tools),
            tool_choice="required" if body.must_call else "auto",
            parallel_tool_calls=body.parallel_tool_calls and not isinstance(body.tool_choice, NamedTool),
            add_generation_prompt=body.begins_turn,
            continue_final_message=body.continues,
        ),
    )
    return Question(request, said.params | grammar_back | _params(body, callable_tools))


def _params(body: ChatRequest, callable_tools: Sequence[int]) -> dict[str, str]:
    params = tool_params(callable_tools)
    if body.max_completion_tokens is not None:
        params["max_tokens"] = "max_completion_tokens"
    if body.top_logprobs is not None:
        params["logprobs"] = "top_logprobs"
    return params


def _grammar(body: ChatRequest) -> tuple[wire.Grammar | None, dict[str, str]]:
    match body.response_format:
        case JsonObjectFormat(schema_=schema, value=value) if schema or value:
            back = grammar_params(f"response_format.{'schema' if schema else 'value'}")
            return wire.JsonGrammar(json_schema=schema or value or {}), back
        case JsonObjectFormat():
            return wire.JsonGrammar(json_schema={"type": "object"}), grammar_params("response_format")
        case JsonSchemaFormat(json_schema=named):
            back = grammar_params("response_format.json_schema.schema")
            return wire.JsonGrammar(json_schema=named.schema_, strict=named.strict or False), back
    return structured(body)


def as_tool(tool: FunctionTool) -> wire.Tool:
    """A tool in the model's terms."""
    function = tool.function
    return wire.Tool(
        name=function.name,
        description=function.description,
        parameters=function.parameters or None,
        strict=function.strict or False,
    )


def tool_params(shown: Sequence[int]) -> dict[str, str]:
    """The way back from the tools that the model is shown to those of the request."""
    return {f"tools[{position}]": f"tools[{i}].function" for position, i in enumerate(shown)}


async def converse(messages: Sequence[Message], settings: Settings) -> Conversation:
    """A conversation, its files read.

    Raises:
        BadRequest: about a picture or a sound.
    """
    work = partial(_convert, messages)
    said, images, audio = await in_thread(work) if _is_long(messages) else work()
    return said._replace(images=await read_images(images, settings), audio=await read_audio(audio, settings))


def _is_long(messages: Sequence[Message]) -> bool:
    parts = sum(len(message.content) for message in messages if isinstance(message.content, list))
    return len(messages) + parts > _MANY


def _convert(messages: Sequence[Message]) -> tuple[Conversation, list[Place], list[Place]]:
    """A conversation without its files, and where its images and its audio are."""
    images, audio = list(_images(messages)), list(_sounds(messages))
    params = {f"images[{i}]": param for i, (param, _) in enumerate(images)}
    params |= {f"audio[{i}]": param for i, (param, _) in enumerate(audio)}
    params |= {"images": "messages", "audio": "messages", "prompt": "messages"}
    said = tuple(_message(message) for message in messages)
    return Conversation(said, (), (), params | _call_params(messages)), images, audio


def _call_params(messages: Sequence[Message]) -> dict[str, str]:
    return {
        f"messages[{turn}].tool_calls[{i}].{name}": f"messages[{turn}].tool_calls[{i}].function.{name}"
        for turn, message in enumerate(messages)
        if isinstance(message, AssistantMessage)
        for i in range(len(message.tool_calls or ()))
        for name in ("name", "arguments")
    }


def _parts(messages: Sequence[Message]) -> Iterator[tuple[str, AnyPart]]:
    """Every part of every message, with its path."""
    for turn, message in enumerate(messages):
        if isinstance(message.content, list):
            for index, part in enumerate(message.content):
                yield f"messages[{turn}].content[{index}]", part


def _images(messages: Sequence[Message]) -> Iterator[Place]:
    for path, part in _parts(messages):
        if isinstance(part, ImagePart):
            yield f"{path}.image_url.url", part.image_url.url
        elif isinstance(part, FilePart):
            yield f"{path}.file.file_data", part.file.file_data


def _sounds(messages: Sequence[Message]) -> Iterator[Place]:
    for path, part in _parts(messages):
        if isinstance(part, AudioPart):
            yield f"{path}.input_audio.data", part.input_audio.data
        elif isinstance(part, AudioUrlPart):
            yield f"{path}.audio_url.url", part.audio_url.url


def _message(message: Message) -> wire.Message:
    name = None if isinstance(message, ToolMessage) else message.name or None
    if isinstance(message, AssistantMessage):
        calls = tuple(
            wire.ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
            for call in message.tool_calls or ()
        )
        return wire.Message(role="assistant", content=_said(message), name=name, tool_calls=calls)
    role = "system" if message.role == "developer" else message.role
    call_id = message.tool_call_id if isinstance(message, ToolMessage) else None
    return wire.Message(role=role, content=_content(message.content), name=name, tool_call_id=call_id)


def _said(message: AssistantMessage) -> str | tuple[wire.Part, ...]:
    """What the assistant said; a refusal is what it said, too."""
    if message.refusal is None:
        return _content(message.content)
    if not message.content:
        return message.refusal
    said = _content(message.content)
    parts = (wire.TextPart(text=said),) if isinstance(said, str) else said
    return (*parts, wire.TextPart(text=message.refusal))


def _content(content: str | Sequence[AnyPart]) -> str | tuple[wire.Part, ...]:
    if isinstance(content, str):
        return content
    return tuple(_part(part) for part in content if not isinstance(part, ReasoningPart)) or ""


def _part(part: AnyPart) -> wire.Part:
    match part:
        case TextPart():
            return wire.TextPart(text=part.text)
        case RefusalPart():
            return wire.TextPart(text=part.refusal)
        case AudioPart() | AudioUrlPart():
            return wire.AudioPart()
    return wire.ImagePart()
