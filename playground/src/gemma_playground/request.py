"""What the panel of settings says, as a request."""

import json
import pprint
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from gemma_playground.media import Refused

FORMATS: Final = ("text", "json_object", "json_schema")
PANEL: Final = {
    "model": "Model",
    "system": "System prompt",
    "temperature": "Temperature",
    "top_p": "Top p",
    "max_tokens": "Max tokens",
    "seed": "Seed",
    "stop": "Stop sequences",
    "frequency_penalty": "Frequency penalty",
    "presence_penalty": "Presence penalty",
    "response_format": "Response format",
    "json_schema": "JSON schema",
    "tools": "Tools",
    "logprobs": "Log probabilities",
}
"""Every setting's name in URLs and files, and its label; in the order of the panel."""
NUMBERS: Final = ("temperature", "top_p", "max_tokens", "seed", "frequency_penalty", "presence_penalty")


def touched(values: Iterable[Any]) -> dict[str, Any]:
    """The settings that somebody set, of the panel's values; the rest is the server's to choose."""
    named = zip(PANEL, values, strict=True)
    return {
        name: value for name, value in named if value and (name, value) != ("response_format", FORMATS[0])
    }


def panel(found: Any) -> list[Any]:
    """The panel's values of a mapping from anywhere; what is missing is left as the server likes it."""
    told = found if isinstance(found, Mapping) else {}
    values: dict[str, Any] = {name: str(told.get(name) or "") for name in PANEL}
    form = values["response_format"]
    values["model"] = values["model"] or None
    values["response_format"] = form if form in FORMATS else FORMATS[0]
    values["logprobs"] = values["logprobs"].lower() == "true"
    return list(values.values())


def request(messages: Sequence[Mapping[str, Any]], values: Iterable[Any]) -> dict[str, Any]:
    """What is sent for these messages: ``model``, ``messages``, and what was set. Raises Refused."""
    set_to = touched(values)
    told = {name: set_to.get(name, "") for name in PANEL}
    system = [{"role": "system", "content": told["system"]}] if told["system"] else []
    sent = {"model": told["model"], "messages": [*system, *messages]}
    sent |= {name: _json(name, told[name]) for name in NUMBERS if told[name]}
    if told["stop"]:
        sent["stop"] = told["stop"].splitlines()
    if told["response_format"]:
        sent["response_format"] = {"type": told["response_format"]}
    if told["response_format"] == "json_schema":
        schema = _json("json_schema", told["json_schema"] or "{}")
        sent["response_format"]["json_schema"] = {"name": "answer", "schema": schema}
    if told["tools"]:
        tools = _json("tools", told["tools"])
        sent["tools"] = tools if isinstance(tools, list) else [tools]
    if told["logprobs"]:
        sent |= {"logprobs": True, "top_logprobs": 5}
    return sent


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_constant)
    except ValueError as error:
        told = f"{text!r} is not a number" if name in NUMBERS else f"this is not JSON: {error}"
        raise Refused(f"{PANEL[name]}: {told}.") from None


def _constant(name: str) -> None:
    raise ValueError(f"{name} is none")


def snippets(sent: Mapping[str, Any], base_url: str) -> tuple[str, str, str]:
    """The request for a shell, for Python and for JavaScript; none holds the key."""
    body = json.dumps({**sent, "stream": True}, ensure_ascii=False, indent=2)
    curl = f"""curl -N '{base_url}/chat/completions' \\
  -H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" \\
  --data-binary @- <<'REQUEST'
{body}
REQUEST"""
    python = f"""import os
from openai import OpenAI

client = OpenAI(base_url={base_url!r}, api_key=os.environ.get("OPENAI_API_KEY", "none"))
request = {pprint.pformat(dict(sent), width=100, sort_dicts=False)}
for chunk in client.chat.completions.create(**request, stream=True):
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)"""
    script = f"""import OpenAI from "openai";

const client = new OpenAI({{ baseURL: {base_url!r}, apiKey: process.env.OPENAI_API_KEY ?? "none" }});
const stream = await client.chat.completions.create({body});
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta?.content ?? "");"""
    return curl, python, script
