"""A request with the shape of a coding agent's: long instructions, every kind of tool, a long history."""

from typing import Any

Json = dict[str, Any]
INSTRUCTIONS = "\n".join(
    f"{number}. When a file is changed, run the tests that cover it, and report what failed."
    for number in range(12)
)


def _function(name: str, **properties: Json) -> Json:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties)[:1],
        "additionalProperties": False,
    }
    return {"type": "function", "name": name, "description": name, "strict": False, "parameters": schema}


_TEXT = {"type": "string"}
SHELL = _function(
    "shell",
    command={"type": "array", "items": _TEXT},
    workdir=_TEXT,
    timeout_ms={"type": "number"},
)
TOOLS: list[Json] = [
    SHELL,
    _function(
        "update_plan", plan={"type": "array", "items": {"type": "object", "properties": {"step": _TEXT}}}
    ),
    _function("view_image", path=_TEXT),
    {
        "type": "custom",
        "name": "apply_patch",
        "description": "Changes files.",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: /(.|\\n)+/"},
    },
    {"type": "web_search", "external_web_access": False},
    {"type": "image_generation", "output_format": "png"},
    {"type": "local_shell"},
    {
        "type": "namespace",
        "name": "tracker",
        "description": "The issue tracker.",
        "tools": [_function("list_issues", state=_TEXT)],
    },
    {"type": "tool_search"},
]


def _message(role: str, kind: str, text: str) -> Json:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


HISTORY: list[Json] = [
    _message("developer", "input_text", "<permissions>read only</permissions>"),
    _message("user", "input_text", "<environment><cwd>/src</cwd></environment>"),
    _message("user", "input_text", "Why does the test fail?"),
    {"type": "reasoning", "summary": [], "content": None, "encrypted_content": "gAAAAA"},
    _message("assistant", "output_text", "I run it."),
    {
        "type": "function_call",
        "name": "shell",
        "arguments": '{"command":["pytest","-x"]}',
        "call_id": "call_a",
    },
    {"type": "function_call", "name": "view_image", "arguments": '{"path":"a.png"}', "call_id": "call_b"},
    {"type": "function_call_output", "call_id": "call_a", "output": '{"output":"1 failed","metadata":{}}'},
    {"type": "function_call_output", "call_id": "call_b", "output": [{"type": "input_text", "text": "red"}]},
    {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}},
]


def codex_request(model: str) -> Json:
    """The body of the request."""
    return {
        "model": model,
        "instructions": INSTRUCTIONS,
        "input": HISTORY,
        "tools": TOOLS,
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "service_tier": "priority",
        "prompt_cache_key": "0198c9ad",
        "text": {"verbosity": "low"},
        "client_metadata": None,
    }
