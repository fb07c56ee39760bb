"""The messages of a conversation in Anthropic's form, called turns here."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, Tag

from gemma_gateway.anthropic.blocks import (
    AssistantContent,
    SystemContent,
    ToolResultBlock,
    ToolUseBlock,
    UserContent,
)
from gemma_gateway.schema.messages import LenientModel
from gemma_gateway.schema.strict_model import conflict, tagged_by
from gemma_wire.messages import MAX_MESSAGES, check_parts


class UserTurn(LenientModel):
    """The user's text and images, and the results of tool calls."""

    role: Literal["user"]
    content: UserContent


class AssistantTurn(LenientModel):
    """An earlier turn of the model. The ``content`` of a message is valid here unchanged."""

    role: Literal["assistant"]
    content: AssistantContent


class SystemTurn(LenientModel):
    """Instructions in the middle of a conversation."""

    role: Literal["system"]
    content: SystemContent = ""


Turn = Annotated[
    Annotated[UserTurn, Tag("<user>")]
    | Annotated[AssistantTurn, Tag("<assistant>")]
    | Annotated[SystemTurn, Tag("<system>")],
    tagged_by("role", "user", "assistant", "system"),
]
Turns = Annotated[list[Turn], Field(min_length=1, max_length=MAX_MESSAGES), BeforeValidator(check_parts)]


def check_results(turns: list[Turn]) -> None:
    """Checks that the user's next turn has a result for each call, and no others.

    Raises:
        PydanticCustomError: names the first block that violates this.
    """
    open_calls: Mapping[str, str] = {}
    for index, turn in enumerate(turns):
        blocks = turn.content if isinstance(turn.content, list) else []
        if isinstance(turn, UserTurn):
            found = {
                f"messages[{index}].content[{i}].tool_use_id": block.tool_use_id
                for i, block in enumerate(blocks)
                if isinstance(block, ToolResultBlock)
            }
            _check_known(found, open_calls)
            _check_all_answered({k: v for k, v in open_calls.items() if k not in found.values()})
            open_calls = {}
        elif isinstance(turn, AssistantTurn):
            _check_all_answered(open_calls)
            open_calls = {
                block.id: f"messages[{index}].content[{i}]"
                for i, block in enumerate(blocks)
                if isinstance(block, ToolUseBlock)
            }
    _check_all_answered(open_calls)


def _check_known(found: Mapping[str, str], open_calls: Mapping[str, str]) -> None:
    seen: set[str] = set()
    for path, call_id in found.items():
        if call_id not in open_calls or call_id in seen:
            raise conflict(path, "does not match a tool_use block that still needs a result")
        seen.add(call_id)


def _check_all_answered(open_calls: Mapping[str, str]) -> None:
    for call_id, path in open_calls.items():
        reason = f"must be followed by a tool_result block in the next message; missing: {call_id[:200]}"
        raise conflict(path, reason)
