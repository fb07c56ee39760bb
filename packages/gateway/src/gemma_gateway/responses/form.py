"""What a response contains besides its output, as its request asks for it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from openai.types.responses import Response, ResponseError, ResponseOutputItem, ResponseUsage
from openai.types.responses.response import IncompleteDetails
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from pydantic import BaseModel
from pydantic_core import to_json

import gemma_wire as wire
from gemma_gateway.errors import ApiError
from gemma_gateway.response_base import ResponseBase
from gemma_gateway.schema.response_tools import ResponseFunctionTool, UsedTool
from gemma_gateway.schema.responses import ResponsesRequest

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
_ENDED = ("completed", "incomplete", "failed", "cancelled")


@dataclass(frozen=True)
class ResponseForm:
    """The options of a request that decide what its response contains.

    Args:
        empty: the response before it has any output.
    """

    empty: Response

    @staticmethod
    def of(body: ResponsesRequest, base: ResponseBase, stored: bool = False) -> "ResponseForm":
        """The form of the response to a request.

        Args:
            body: the request.
            base: its id and other common fields.
            stored: whether it will be stored.
        """
        empty = Response(
            id=base.id,
            object="response",
            created_at=base.created,
            model=base.model,
            output=[],
            error=None,
            incomplete_details=None,
            **_echoed(body),
            store=stored,
        )
        return ResponseForm(empty.model_copy(update={"created_at": base.created}))  # an integer in JSON, too

    def response(
        self,
        status: Status,
        output: Sequence[ResponseOutputItem] = (),
        usage: wire.Usage | None = None,
        error: ApiError | None = None,
    ) -> Response:
        """The response in this state."""
        changes: dict[str, Any] = {"status": status, "output": list(output)}
        if status in _ENDED:
            changes["completed_at"] = int(time.time()) if status == "completed" else None
        if status == "incomplete":
            changes["incomplete_details"] = IncompleteDetails(reason="max_output_tokens")
        if usage is not None:
            changes["usage"] = to_response_usage(usage)
        if error is not None:
            changes["error"] = ResponseError(code=_error_code(error), message=error.message)
        return self.empty.model_copy(update=changes)


def to_bytes(model: BaseModel) -> bytes:
    """The fields that were set, as JSON.

    Times are integers, as OpenAI sends them, although its types have floats.
    """
    return to_json(model.model_dump(by_alias=True, exclude_unset=True))


def _echoed(body: ResponsesRequest) -> dict[str, Any]:
    """The parameters that a response repeats, as they were used."""
    tools = [_echoed_tool(tool) for _, tool in body.used_tools]
    choice = body.tool_choice
    text_format = body.text.format.model_dump(by_alias=True, exclude_unset=True)
    return {
        "background": bool(body.background),
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "temperature": body.temperature,
        "text": {"format": text_format, "verbosity": "medium"},
        "tool_choice": choice if isinstance(choice, str) else choice.model_dump(exclude_unset=True),
        "tools": tools,
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": body.truncation or "disabled",
    }


def _echoed_tool(tool: UsedTool) -> dict[str, Any]:
    shown = tool.model_dump(include={"type", "name", "description"})
    if isinstance(tool, ResponseFunctionTool):
        return {**shown, "parameters": tool.parameters, "strict": tool.strict or False}
    return {**shown, "format": tool.format.model_dump()}


def to_response_usage(usage: wire.Usage) -> ResponseUsage:
    """Token counts in the form of the Responses API."""
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=usage.cached_tokens, cache_write_tokens=0),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def _error_code(error: ApiError) -> Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]:
    if error.status == 429:
        return "rate_limit_exceeded"
    return "invalid_prompt" if error.status < 500 else "server_error"
