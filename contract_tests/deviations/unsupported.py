"""What OpenAI's document has and this server does not support."""

from deviations.builders import COMPLETIONS, FUNCTION, HI, IN_CHAT, IN_COMPLETION, MESSAGES, NULL, chat
from overlay import Json, Shown, drop, drop_member, put


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
