"""Turns and blocks as the wire's messages."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import gemma_wire as wire
from gemma_gateway.anthropic.blocks import (
    Base64Source,
    CompactionBlock,
    DocumentBlock,
    ImageBlock,
    SearchResultBlock,
    SystemContent,
    TextBlock,
    TextSource,
    ToolResultBlock,
    ToolUseBlock,
)
from gemma_gateway.anthropic.turns import AssistantTurn, SystemTurn, Turn, UserTurn
from gemma_gateway.media.loader import MediaReference

_SEPARATOR: Final = "\n\n"
"""Between the texts of two blocks."""


@dataclass
class WireMessages:
    """A conversation in the wire's form, as it is being built.

    Args:
        messages: the wire's. A turn becomes several if it has results of tool calls.
        images: references to the images, in order.
        param_names: see ``EngineCall``.
    """

    messages: list[wire.Message] = field(default_factory=list)
    images: list[MediaReference] = field(default_factory=list)
    param_names: dict[str, str] = field(default_factory=dict)

    def add_system(self, content: SystemContent, path: str) -> None:
        """Instructions."""
        if content:
            self._add(wire.Message(role="system", content=self._content(content, path)), path)

    def add_turn(self, turn: Turn, path: str) -> None:
        """A turn of the conversation."""
        if isinstance(turn, SystemTurn):
            self.add_system(turn.content, path)
        elif isinstance(turn, AssistantTurn):
            self._add(_assistant_message(turn), path)
        elif isinstance(turn.content, str):
            self._add(wire.Message(role="user", content=turn.content), path)
        else:
            self._add_user_blocks(turn, path)

    def _add_user_blocks(self, turn: UserTurn, path: str) -> None:
        """Results are messages of their own; the blocks between them are the user's."""
        parts: list[wire.Part] = []
        before = len(self.messages)
        for i, block in enumerate(turn.content):
            inner = f"{path}.content[{i}]"
            if isinstance(block, ToolResultBlock):
                self._flush(parts, path)
                self._add_result(block, inner)
            else:
                self._append(parts, block, inner)
        self._flush(parts, path)
        if len(self.messages) == before:
            self._add(wire.Message(role="user"), path)

    def _flush(self, parts: list[wire.Part], path: str) -> None:
        if parts:
            self._add(wire.Message(role="user", content=tuple(parts)), path)
            parts.clear()

    def _add_result(self, block: ToolResultBlock, path: str) -> None:
        content = self._content(block.content, path)
        if block.is_error:
            parts = (wire.TextPart(text=content),) if isinstance(content, str) else content
            content = (wire.TextPart(text="Error: "), *parts)
        self._add(wire.Message(role="tool", content=content, tool_call_id=block.tool_use_id), path)

    def _add(self, message: wire.Message, path: str) -> None:
        self.param_names[f"messages[{len(self.messages)}]"] = path
        self.messages.append(message)

    def _content(self, content: str | Sequence[object], path: str) -> str | tuple[wire.Part, ...]:
        if isinstance(content, str):
            return content
        parts: list[wire.Part] = []
        for i, block in enumerate(content):
            self._append(parts, block, f"{path}.content[{i}]")
        return tuple(parts) or ""

    def _append(self, parts: list[wire.Part], block: object, path: str) -> None:
        """Adds what the model sees of a block."""
        match block:
            case TextBlock():
                _append_text(parts, block.text)
            case ImageBlock():
                self._append_image(parts, block, path)
            case DocumentBlock():
                self._append_document(parts, block, path)
            case SearchResultBlock():
                _append_text(parts, _lines(block.title, block.source, *(each.text for each in block.content)))

    def _append_image(self, parts: list[wire.Part], block: ImageBlock, path: str) -> None:
        source = block.source
        if isinstance(source, Base64Source):
            self.images.append((f"{path}.source.data", f"data:;base64,{source.data}"))
        else:
            self.images.append((f"{path}.source.url", source.url))
        self.param_names[f"images[{len(self.images) - 1}]"] = self.images[-1][0]
        parts.append(wire.ImagePart())

    def _append_document(self, parts: list[wire.Part], block: DocumentBlock, path: str) -> None:
        source = block.source
        content = source.data if isinstance(source, TextSource) else source.content
        if isinstance(content, str):
            _append_text(parts, _lines(block.title, block.context, content))
            return
        _append_text(parts, _lines(block.title, block.context))
        for i, each in enumerate(content):
            self._append(parts, each, f"{path}.source.content[{i}]")


def _append_text(parts: list[wire.Part], text: str) -> None:
    """A text next to another one is separated from it."""
    if text:
        follows = bool(parts) and isinstance(parts[-1], wire.TextPart)
        parts.append(wire.TextPart(text=f"{_SEPARATOR}{text}" if follows else text))


def _lines(*texts: str) -> str:
    return "\n".join(filter(None, texts))


def _assistant_message(turn: AssistantTurn) -> wire.Message:
    """The model's own texts have no separator: they are one text with citations in between."""
    if isinstance(turn.content, str):
        return wire.Message(role="assistant", content=turn.content)
    texts = tuple(wire.TextPart(text=text) for text in _texts(turn))
    calls = tuple(
        wire.ToolCall(id=block.id, name=block.name, arguments=json.dumps(block.input, ensure_ascii=False))
        for block in turn.content
        if isinstance(block, ToolUseBlock)
    )
    return wire.Message(role="assistant", content=texts or "", tool_calls=calls)


def _texts(turn: AssistantTurn) -> Iterator[str]:
    for block in turn.content:
        if isinstance(block, TextBlock):
            yield block.text
        elif isinstance(block, CompactionBlock):
            yield block.content
