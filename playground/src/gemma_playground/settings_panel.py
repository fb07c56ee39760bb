"""The settings panel: its components, the request they define, and that request as code."""

import json
import pprint
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import gradio as gr

Component = gr.components.Component
NUMERIC_FIELDS: Final = (
    "temperature",
    "top_p",
    "max_tokens",
    "seed",
    "frequency_penalty",
    "presence_penalty",
)
FIELDS: Final = (
    "model",
    "system",
    *NUMERIC_FIELDS,
    "stop",
    "response_format",
    "json_schema",
    "tools",
    "logprobs",
)
"""The fields in the order of the panel; their names are used in URLs and files."""
SNIPPETS: Final = {
    name: (Path(__file__).parent / "snippets" / f"{name}.txt").read_text(encoding="utf-8").rstrip()
    for name in ("curl", "Python", "JavaScript")
}


def build_panel() -> list[Component]:
    """Creates the components of a panel; the server's defaults apply to empty fields."""
    with gr.Accordion("Settings"):
        model = gr.Dropdown([], label="Model", allow_custom_value=True)
        system = gr.Textbox(label="System prompt", lines=2, placeholder="You are …")
        with gr.Row():
            labels = [name.replace("_", " ").capitalize() for name in NUMERIC_FIELDS]
            numbers = [gr.Textbox(label=label, placeholder="default", min_width=110) for label in labels]
        stop = gr.Textbox(label="Stop sequences", lines=1, placeholder="one a line")
    with gr.Accordion("Format and tools", open=False):
        form = gr.Dropdown([("text", ""), "json_object", "json_schema"], label="Response format")
        schema = gr.Textbox(label="JSON schema", lines=3, placeholder='{"type": "object", …}')
        tool = '[{"type": "function", "function": {"name": …, "parameters": …}}]'
        tools = gr.Textbox(label="Tools", lines=3, placeholder=tool)
        return [model, system, *numbers, stop, form, schema, tools, gr.Checkbox(label="Log probabilities")]


def non_empty(values: Iterable[Any]) -> dict[str, Any]:
    """The fields that are not empty."""
    return {name: value for name, value in zip(FIELDS, values, strict=True) if value}


def panel_values(found: Any) -> list[Any]:
    """The panel's values from an untrusted mapping; missing fields become empty, but the model is kept."""
    told = found if isinstance(found, Mapping) else {}
    return [str(told.get(name) or "") or (gr.skip() if name == "model" else "") for name in FIELDS]


def build_request(messages: Sequence[Mapping[str, Any]], values: Iterable[Any]) -> dict[str, Any]:
    """The request body: ``model``, ``messages`` and the fields that are set. Raises ValueError."""
    told = non_empty(values)
    for name in [name for name in told if name in (*NUMERIC_FIELDS, "json_schema", "tools")]:
        try:
            told[name] = json.loads(told[name], parse_constant=int)  # rejects NaN and Infinity
        except ValueError as error:
            label = name.replace("_", " ").capitalize()
            raise ValueError(f"{label}: {told[name][:40]!r} is not JSON: {error}.") from None
    system = [{"role": "system", "content": told["system"]}] if "system" in told else []
    sent = {"model": told.get("model", ""), "messages": [*system, *messages]}
    sent |= {name: told[name] for name in NUMERIC_FIELDS if name in told}
    if "stop" in told:
        sent["stop"] = told["stop"].splitlines()
    if form := told.get("response_format"):
        schema = {"name": "answer", "schema": told.get("json_schema", {})}
        sent["response_format"] = {"type": form} | ({form: schema} if form == "json_schema" else {})
    if "tools" in told:
        sent["tools"] = told["tools"] if isinstance(told["tools"], list) else [told["tools"]]
    return sent | ({"logprobs": True, "top_logprobs": 5} if "logprobs" in told else {}) | {"stream": True}


def code_snippets(sent: Mapping[str, Any], base_url: str) -> list[str]:
    """The request as shell, Python and JavaScript code, without the API key."""
    body = json.dumps(sent, ensure_ascii=False, indent=2)
    python = pprint.pformat(dict(sent), width=100, sort_dicts=False)
    codes = [code.replace("BASE_URL", base_url) for code in SNIPPETS.values()]
    return [code.replace("REQUEST", text) for code, text in zip(codes, (body, python, body), strict=True)]
