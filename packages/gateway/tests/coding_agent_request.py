"""A request like those of Claude Code: its fields, headers and types of tools, with texts of our own."""

from typing import Any

CACHED: Any = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27",
    "anthropic-dangerous-direct-browser-access": "true",
    "user-agent": "claude-cli/3.0.0 (external, cli)",
    "x-app": "cli",
    "x-stainless-helper-method": "stream",
}
PATH = "/v1/messages?beta=true"
_TEXT = {"type": "string"}
_RULE = "Prefer small steps: read a file before you change it, and run its tests afterwards. "


def _tool(name: str, description: str, *required: str, **properties: Any) -> dict[str, Any]:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return {"name": name, "description": description, "input_schema": schema}


def _custom_tools() -> list[dict[str, Any]]:
    seconds = {"type": "number", "exclusiveMinimum": 0, "description": "Timeout."}
    change = {
        "type": "object",
        "properties": {"old": {**_TEXT, "minLength": 1}, "new": _TEXT},
        "required": ["old", "new"],
        "additionalProperties": False,
    }
    status = {"type": "string", "enum": ["open", "doing", "done"]}
    task = {"type": "object", "properties": {"text": _TEXT, "status": status}, "required": ["text"]}
    return [
        _tool("Bash", "Runs a command.", "command", command=_TEXT, timeout=seconds),
        _tool("Read", "Reads a file.", "file_path", file_path=_TEXT, offset={"type": "integer"}),
        _tool(
            "Edit", "Changes a file.", "file_path", "changes", file_path=_TEXT,
            changes={"type": "array", "items": change, "minItems": 1},
        ),
        _tool("Write", "Writes a file.", "file_path", "content", file_path=_TEXT, content=_TEXT),
        _tool(
            "Grep", "Searches files.", "pattern", pattern=_TEXT, glob=_TEXT,
            **{"-i": {"type": "boolean", "default": False}},
        ),
        _tool("TodoWrite", "Keeps a list of tasks.", "todos", todos={"type": "array", "items": task}),
        {**_tool("Task", "Starts an agent.", "prompt", prompt=_TEXT), "eager_input_streaming": True},
        {**_tool("mcp__tracker__find_issue", "", query=_TEXT), "defer_loading": True, "type": "custom"},
    ]  # fmt: skip


def _other_tools() -> list[dict[str, Any]]:
    return [
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 8, "allowed_domains": ["x.org"]},
        {"type": "web_fetch_20250910", "name": "web_fetch", "citations": {"enabled": True}},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool", "max_characters": 9000},
        {"type": "memory_20250818", "name": "memory"},
        {"type": "computer_20251124", "name": "computer", "display_width_px": 800, "display_height_px": 600},
        {"type": "code_execution_20250825", "name": "code_execution"},
        {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex", **CACHED},
        {"type": "mcp_toolset", "mcp_server_name": "tracker"},
    ]


def coding_agent_request(paragraphs: int, **rest: Any) -> dict[str, Any]:
    """The request after one step of the agent.

    Args:
        paragraphs: of the instructions, each of 80 characters.
        rest: further fields.
    """
    call = {"type": "tool_use", "id": "toolu_01", "name": "Read", "input": {"file_path": "/tmp/a.py"}}
    return {
        "model": "claude-sonnet-4-5-20250929",
        "max_tokens": 32_000,
        "stream": True,
        "temperature": 1,
        "metadata": {"user_id": "user_0_account__session_1"},
        "thinking": {"type": "enabled", "budget_tokens": 31_999},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        "system": [
            {"type": "text", "text": "You are an agent that changes code.", **CACHED},
            {"type": "text", "text": _RULE * paragraphs, **CACHED},
        ],
        "tools": [*_custom_tools(), *_other_tools()],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "<system-reminder>\nThe list is empty.\n</system-reminder>"},
                    {"type": "text", "text": "What does a.py print?"},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "I need the file.", "signature": "c2lnbmF0dXJl"},
                    {"type": "text", "text": "I read the file."},
                    call,
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_01",
                        "content": [{"type": "text", "text": "1\tprint('hello')"}],
                        **CACHED,
                    },
                    {"type": "text", "text": "Answer in one word.", **CACHED},
                ],
            },
        ],
        **rest,
    }
