"""What OpenAI's document has and this server does not support."""

from deviations.builders import COMPLETIONS, FUNCTION, HI, IN_CHAT, IN_COMPLETION, MESSAGES, NULL, TOOL, chat
from overlay import Json, Shown, drop, drop_member, put

_CUSTOM_TOOL = {"type": "custom", "custom": {"name": "f"}}
_CUSTOM_CALL = {"id": "1", "type": "custom", "custom": {"name": "f", "input": ""}}
_FUNCTIONS_ONLY = "The tools of this server are functions."


def _said(*messages: Json) -> dict[str, Json]:
    return {"messages": [HI, *messages]}


REFUSED = [
    drop(
        f"{IN_CHAT}/functions",
        "Superseded by tools in 2023, before Gemma 3n existed.",
        Shown({"functions": [FUNCTION]}, param="functions"),
    ),
    chat("function_call", {"enum": ["none", "auto"]}, "As functions.", {"name": "f"}),
    drop(
        f"{IN_CHAT}/web_search_options",
        "There is no web search behind this server.",
        Shown({"web_search_options": {"search_context_size": "low"}}, param="web_search_options"),
    ),
    chat("audio", NULL, "Gemma 3n hears and does not speak.", {"voice": "alloy", "format": "wav"}),
    chat("modalities", {"enum": [["text"], None]}, "As audio.", ["text", "audio"]),
    put(
        f"{IN_COMPLETION}/suffix",
        {"enum": [None, ""]},
        "Gemma 3n cannot fill gaps.",
        Shown({"suffix": "."}, param="suffix", path=COMPLETIONS),
    ),
    drop_member(
        f"{MESSAGES}Message/oneOf",
        "ChatCompletionRequestFunctionMessage",
        "As functions.",
        Shown(_said({"role": "function", "name": "f", "content": ""}), param="messages[1].role"),
    ),
    put(
        f"{MESSAGES}AssistantMessage/properties/function_call",
        NULL,
        "As functions.",
        Shown(
            _said({"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": ""}}),
            param="messages[1].function_call",
        ),
    ),
    put(
        f"{MESSAGES}AssistantMessage/properties/audio",
        NULL,
        "As audio.",
        Shown(_said({"role": "assistant", "content": "", "audio": {"id": "1"}}), param="messages[1].audio"),
    ),
    drop_member(
        "/components/schemas/ChatCompletionMessageToolCalls/items/oneOf",
        "ChatCompletionMessageCustomToolCall",
        _FUNCTIONS_ONLY,
        Shown(
            _said({"role": "assistant", "content": "", "tool_calls": [_CUSTOM_CALL]}),
            param="messages[1].tool_calls[0]",
        ),
    ),
    drop_member(
        f"{IN_CHAT}/tools/items/oneOf",
        "CustomToolChatCompletions",
        _FUNCTIONS_ONLY,
        Shown({"tools": [_CUSTOM_TOOL]}, param="tools[0]"),
    ),
    drop_member(
        "/components/schemas/ChatCompletionToolChoiceOption/oneOf",
        "ChatCompletionNamedToolChoiceCustom",
        _FUNCTIONS_ONLY,
        Shown({"tools": [TOOL], "tool_choice": _CUSTOM_TOOL}, param="tool_choice"),
    ),
    put(
        f"{MESSAGES}MessageContentPartFile/properties/file",
        {
            "type": "object",
            "properties": {"filename": {"type": "string"}, "file_data": {"type": "string"}},
            "required": ["file_data"],
        },
        "There is no store that a file_id could name something in.",
        Shown(
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "1"}}]}]},
            param="messages[0].content[0].file",
        ),
    ),
]
