"""The items of a request as turns of a conversation, from which the engine's messages are made."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import gemma_wire as wire
from gemma_gateway.errors import BadRequest
from gemma_gateway.media.loader import MediaReference, read_audio, read_images
from gemma_gateway.schema.response_items import (
    CustomToolCallItem,
    FunctionCall,
    FunctionCallOutput,
    InputAudioPart,
    InputFile,
    InputImage,
    InputItem,
    InputMessage,
    ItemPart,
    ReplyMessage,
)
from gemma_gateway.settings import GatewaySettings

Role = Literal["system", "user", "assistant"]
PlacedItem = tuple[str, InputItem]
"""The parameter that has an item (``input[3]``), and the item."""


@dataclass
class _Files:
    """The images or audio of a turn: where they come from, and their content once it is loaded."""

    references: list[MediaReference] = field(default_factory=list)
    contents: tuple[bytes, ...] = ()


@dataclass
class Turn:
    """Messages that belong together: one message, or calls of tools with their results.

    Args:
        role: of the message.
        content: of the message.
        calls: the parameter of each call, and the call.
        results: of the calls, in the order of the request.
        images, audio: the files of all messages, in the order of their positions.
    """

    role: Role
    content: str | tuple[wire.Part, ...] = ""
    calls: list[tuple[str, wire.ToolCall]] = field(default_factory=list)
    results: list[wire.Message] = field(default_factory=list)
    images: _Files = field(default_factory=_Files)
    audio: _Files = field(default_factory=_Files)

    @property
    def messages(self) -> list[wire.Message]:
        """The turn in the engine's form."""
        calls = tuple(call for _, call in self.calls)
        return [wire.Message(role=self.role, content=self.content, tool_calls=calls), *self.results]

    @property
    def open_call(self) -> str | None:
        """The parameter of the first call without a result."""
        answered = {result.tool_call_id for result in self.results}
        return next((param for param, call in self.calls if call.id not in answered), None)

    def convert(self, param: str, content: str | Sequence[ItemPart]) -> str | tuple[wire.Part, ...]:
        """Content in the engine's form; its files become files of the turn.

        Args:
            param: the parameter of the content.
            content: of an item.
        """
        if isinstance(content, str):
            return content
        return tuple(self._part(f"{param}[{i}]", part) for i, part in enumerate(content)) or ""

    def _part(self, param: str, part: ItemPart) -> wire.Part:
        match part:
            case InputImage():
                self.images.references.append((f"{param}.image_url", part.image_url))
                return wire.ImagePart()
            case InputFile():
                name, value = part.source
                self.images.references.append((f"{param}.{name}", value))
                return wire.ImagePart()
            case InputAudioPart():
                self.audio.references.append((f"{param}.input_audio.data", part.input_audio.data))
                return wire.AudioPart()
        return wire.TextPart(text=part.refusal if part.type == "refusal" else part.text)


def to_turns(instructions: str | None, items: Iterable[PlacedItem]) -> list[Turn]:
    """The conversation of a request. The results of calls follow them, wherever they are in the request.

    Raises:
        BadRequest: a call has no result, a result no call, or there is nothing that the model sees.
    """
    turns = [Turn("system", instructions)] if instructions else []
    for param, item in items:
        match item:
            case InputMessage() | ReplyMessage():
                turns.append(_message(param, item))
            case FunctionCall() | CustomToolCallItem():
                _add_call(turns, param, item)
            case FunctionCallOutput():
                _add_result(turns, param, item)
    if not turns:
        raise BadRequest("'input' has no message.", param="input", code="invalid_parameter_combination")
    for turn in turns:
        if (missing := turn.open_call) is not None:
            raise BadRequest(
                f"Invalid '{missing}': this call has no 'function_call_output' in the input.",
                param=missing,
                code="invalid_parameter_combination",
            )
    return turns


def _message(param: str, item: InputMessage | ReplyMessage) -> Turn:
    turn = Turn("system" if item.role == "developer" else item.role)
    turn.content = turn.convert(f"{param}.content", item.content)
    return turn


def _add_call(turns: list[Turn], param: str, item: FunctionCall | CustomToolCallItem) -> None:
    """Adds a call to the model's turn that it belongs to; one that has results is complete."""
    if not turns or turns[-1].role != "assistant" or turns[-1].results:
        turns.append(Turn("assistant"))
    custom = isinstance(item, CustomToolCallItem)
    text = item.input if isinstance(item, CustomToolCallItem) else item.arguments
    call = wire.ToolCall(id=item.call_id, name=item.name, arguments=text, custom=custom)
    turns[-1].calls.append((param, call))


def _add_result(turns: list[Turn], param: str, item: FunctionCallOutput) -> None:
    answered = {result.tool_call_id for turn in turns for result in turn.results}
    for turn in reversed(turns):
        if item.call_id not in answered and any(call.id == item.call_id for _, call in turn.calls):
            content = turn.convert(f"{param}.output", item.output)
            turn.results.append(wire.Message(role="tool", content=content, tool_call_id=item.call_id))
            return
    raise BadRequest(
        f"Invalid '{param}.call_id': no 'function_call' before it has this id and needs a result.",
        param=f"{param}.call_id",
        code="invalid_parameter_combination",
    )


async def load_files(turns: Sequence[Turn], settings: GatewaySettings) -> None:
    """Loads the images and audio of all turns.

    Raises:
        BadRequest: a file is refused.
    """
    images, audio = [turn.images for turn in turns], [turn.audio for turn in turns]
    _distribute(images, await read_images(_references(images), settings))
    _distribute(audio, await read_audio(_references(audio), settings))


def _references(files: Sequence[_Files]) -> list[MediaReference]:
    return [reference for each in files for reference in each.references]


def _distribute(files: Sequence[_Files], contents: Sequence[bytes]) -> None:
    remaining = iter(contents)
    for each in files:
        each.contents = tuple(next(remaining) for _ in each.references)


def param_names(turns: Sequence[Turn]) -> dict[str, str]:
    """``EngineCall.param_names`` of the conversation."""
    images = _references([turn.images for turn in turns])
    audio = _references([turn.audio for turn in turns])
    names = {f"images[{i}]": param for i, (param, _) in enumerate(images)}
    names |= {f"audio[{i}]": param for i, (param, _) in enumerate(audio)}
    return names | {"images": "input", "audio": "input", "prompt": "input"} | dict(_call_names(turns))


def _call_names(turns: Sequence[Turn]) -> Iterator[tuple[str, str]]:
    place = 0
    for turn in turns:
        for i, (param, _) in enumerate(turn.calls):
            yield f"messages[{place}].tool_calls[{i}]", param
        place += 1 + len(turn.results)
