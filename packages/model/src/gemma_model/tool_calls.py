"""The format of tools and tool calls in the prompt, and the parser of the model's calls.

Gemma 3n has no tokens for tools, so this is our own plain-text format. A call is one line,

    <tool_call>get_weather {"city": "Paris"}</tool_call>

several calls are several lines, and the text before them remains text. A result is written as

    <tool_result>get_weather 18 °C and sunny</tool_result>

The input of a custom tool is text on lines of its own, so that a grammar for lines does not match the end:

    <tool_call>apply_patch
    *** Begin Patch
    </tool_call>
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gemma_wire import Tool, ToolCall, ToolCallDelta

CALL_START, CALL_END = "<tool_call>", "</tool_call>"
CUSTOM_END = f"\n{CALL_END}"
RESULT_START, RESULT_END = "<tool_result>", "</tool_result>"

_NAME_END = re.compile(r"[ \n]")
_INTRODUCTION = "You can call these functions:\n"
_INSTRUCTION = (
    f"\nTo call one, write a line {CALL_START}name {{arguments as JSON}}{CALL_END}. "
    f"Its result comes back as {RESULT_START}name result{RESULT_END}."
)
_CUSTOM_INSTRUCTION = (
    f" If a function has an input instead of parameters, write it as text: "
    f"{CALL_START}name, the text on the next lines, and {CALL_END} on the last."
)


def describe_tools(tools: Sequence[Tool]) -> str:
    """The text for the model: a line of JSON for each tool, and how to call them."""
    lines = (json.dumps(_definition(tool), ensure_ascii=False) for tool in tools)
    custom = _CUSTOM_INSTRUCTION if any(tool.custom for tool in tools) else ""
    return _INTRODUCTION + "\n".join(lines) + _INSTRUCTION + custom


def render_calls(calls: Sequence[ToolCall]) -> str:
    """The calls of an earlier turn, in the model's format."""
    return "\n".join(map(_render_call, calls))


def _render_call(call: ToolCall) -> str:
    if call.custom:
        return f"{CALL_START}{call.name}\n{call.arguments}{CUSTOM_END}"
    return f"{CALL_START}{call.name} {call.arguments}{CALL_END}"


def parameters_schema(tool: Tool) -> dict[str, Any]:
    """The schema of the arguments: an object, without additional properties unless the tool allows them.

    JSON Schema allows additional properties by default. A function has no use for them, and what fits the
    closed schema fits the open one; so the schema is closed if it clearly stays satisfiable.
    """
    schema = {"type": "object", **(tool.parameters or {"properties": {}})}
    plain = schema.keys().isdisjoint({"allOf", "anyOf", "oneOf", "$ref", "patternProperties"})
    named, required = schema.get("properties"), schema.get("required", [])
    if plain and isinstance(named, dict) and isinstance(required, list) and _all_in(required, named):
        schema.setdefault("additionalProperties", False)
    return schema


def _all_in(names: list[Any], known: dict[str, Any]) -> bool:
    return all(isinstance(name, str) and name in known for name in names)


def _definition(tool: Tool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    if tool.custom is None:
        return {"name": tool.name, **described, "parameters": tool.parameters or {}}
    grammar = {tool.custom.syntax: tool.custom.definition} if tool.custom.definition else "text"
    return {"name": tool.name, **described, "input": grammar}


@dataclass
class JsonScanner:
    """Scans JSON text incrementally: whether it is within a string, and the depth of objects and arrays."""

    depth: int = 0
    in_string: bool = False
    escaped: bool = False

    def feed(self, text: str) -> int:
        """Scan at most up to the end of the outermost object or array; returns the number of characters."""
        for position, char in enumerate(text):
            if self.escaped:
                self.escaped = False
            elif self.in_string:
                self.escaped = char == "\\"
                self.in_string = char != '"'
            else:
                self.in_string = char == '"'
                self.depth += (char in "{[") - (char in "}]")
                if char in "}]" and self.depth <= 0:
                    return position + 1
        return len(text)


class ToolCallParser:
    """Parses the text after the first ``<tool_call>`` incrementally.

    Args:
        custom: names of the custom tools.
    """

    def __init__(self, custom: frozenset[str] = frozenset()) -> None:
        self._custom = custom
        self._held = ""
        self._arguments: JsonScanner | None = None
        self._within_input = self._custom_call = False
        self._within = True
        self.calls = 0
        """Number of calls whose name is known."""

    def feed(self, text: str) -> list[ToolCallDelta]:
        """Add text; returns the deltas that are certain."""
        self._held += text
        deltas: list[ToolCallDelta] = []
        while self._within or self._skip_to_call():
            delta = self._read()
            if delta is None:
                break
            deltas.append(delta)
        return join_deltas(deltas)

    def finish(self) -> list[ToolCallDelta]:
        """The rest of an input that has no end: the text ends first."""
        rest, self._held = self._held, ""
        return [self._delta(rest)] if self._within_input and rest else []

    def _read(self) -> ToolCallDelta | None:
        if self._within_input:
            return self._read_input()
        return self._read_arguments() if self._arguments else self._read_name()

    def _read_name(self) -> ToolCallDelta | None:
        found = _NAME_END.search(self._held)
        if found is None:
            return None
        name, self._held = self._held[: found.start()], self._held[found.end() :]
        custom = name in self._custom
        self._within_input = self._custom_call = custom
        self._arguments = None if custom else JsonScanner()
        self.calls += 1
        call_id = f"call_{secrets.token_hex(12)}"
        return ToolCallDelta(index=self.calls - 1, id=call_id, name=name, custom=custom)

    def _read_input(self) -> ToolCallDelta | None:
        """Up to the end of the call, or to where it may have begun."""
        piece, end, rest = self._held.partition(CUSTOM_END)
        if end:
            self._within, self._within_input = False, False
        else:
            kept = overlap(piece, CUSTOM_END)
            piece, rest = piece[: len(piece) - kept], piece[len(piece) - kept :]
        self._held = rest
        return self._delta(piece) if piece or end else None

    def _read_arguments(self) -> ToolCallDelta | None:
        assert self._arguments is not None
        if not self._held:
            return None
        length = self._arguments.feed(self._held)
        piece, self._held = self._held[:length], self._held[length:]
        if self._arguments.depth <= 0:
            self._within, self._arguments = False, None
        return self._delta(piece)

    def _delta(self, arguments: str) -> ToolCallDelta:
        return ToolCallDelta(index=self.calls - 1, arguments=arguments, custom=self._custom_call)

    def _skip_to_call(self) -> bool:
        """Whether another call begins; text between calls is ignored."""
        _, start, rest = self._held.partition(CALL_START)
        if start:
            self._held, self._within = rest, True
        return self._within


def overlap(text: str, mark: str) -> int:
    """Length of the longest suffix of ``text`` that is a proper prefix of ``mark``."""
    longest = min(len(text), len(mark) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(mark[:n])), 0)


def join_deltas(deltas: Sequence[ToolCallDelta]) -> list[ToolCallDelta]:
    """One delta for each call."""
    joined: dict[int, ToolCallDelta] = {}
    for delta in deltas:
        before = joined.get(delta.index)
        joined[delta.index] = delta if before is None else _join(before, delta)
    return list(joined.values())


def _join(first: ToolCallDelta, then: ToolCallDelta) -> ToolCallDelta:
    return first.model_copy(update={"arguments": first.arguments + then.arguments})
