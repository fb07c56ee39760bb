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
        stop = gr.Textbox(label="Stop sequences", lines=1, placeholder="one per line")
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
    fields = found if isinstance(found, Mapping) else {}
    return [str(fields.get(name) or "") or (gr.skip() if name == "model" else "") for name in FIELDS]


def build_request(messages: Sequence[Mapping[str, Any]], values: Iterable[Any]) -> dict[str, Any]:
    """The request body: ``model``, ``messages`` and the fields that are set. Raises ValueError."""
    fields = non_empty(values)
    for name in [name for name in fields if name in (*NUMERIC_FIELDS, "json_schema", "tools")]:
        try:
            fields[name] = json.loads(fields[name], parse_constant=int)  # rejects NaN and Infinity
        except ValueError as error:
            label = name.replace("_", " ").capitalize()
            raise ValueError(f"{label}: {fields[name][:40]!r} is not JSON: {error}.") from None
    system = [{"role": "system", "content": fields["system"]}] if "system" in fields else []
    body = {"model": fields.get("model", ""), "messages": [*system, *messages]}
    body |= {name: fields[name] for name in NUMERIC_FIELDS if name in fields}
    if "stop" in fields:
        body["stop"] = fields["stop"].splitlines()
    if form := fields.get("response_format"):
        schema = {"name": "response", "schema": fields.get("json_schema", {})}
        body["response_format"] = {"type": form} | ({form: schema} if form == "json_schema" else {})
    if "tools" in fields:
        body["tools"] = fields["tools"] if isinstance(fields["tools"], list) else [fields["tools"]]
    return body | ({"logprobs": True, "top_logprobs": 5} if "logprobs" in fields else {}) | {"stream": True}


def code_snippets(body: Mapping[str, Any], base_url: str) -> list[str]:
    """The request as shell, Python and JavaScript code, without the API key."""
    as_json = json.dumps(body, ensure_ascii=False, indent=2)
    as_python = pprint.pformat(dict(body), width=100, sort_dicts=False)
    codes = [code.replace("BASE_URL", base_url) for code in SNIPPETS.values()]
    texts = (as_json, as_python, as_json)
    return [code.replace("REQUEST", text) for code, text in zip(codes, texts, strict=True)]
