"""Makes generated requests short, and removes contradictions that no schema can forbid."""

import base64
import io
import wave
from typing import Any

from PIL import Image

from deviations.builders import INT32_MAX
from image_files import data_uri
from server import MODEL

Json = Any
FEW = 2
"""Limit of tokens, choices and prompts of a generated request: schemathesis reads complete responses."""
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
PICTURE = data_uri(Image.new("RGB", (2, 2), "red"))


def _silence() -> str:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(6400))
    return base64.b64encode(buffer.getvalue()).decode()


SOUND = {"data": _silence(), "format": "wav"}


def shortened(body: dict[str, Json], path: str) -> dict[str, Json]:
    """The request with few tokens, a known model, and integers without a fraction."""
    new: dict[str, Json] = _whole_numbers(body)
    if isinstance(new.get("model"), str):
        new["model"] = MODEL
    for name in (*LIMITS, "n", "best_of", "min_tokens"):
        if _is_count(new.get(name)):
            new[name] = FEW
    if path.endswith("/chat/completions") and all(new.get(name) is None for name in LIMITS):
        new["max_tokens"] = FEW
    if path.endswith("/responses") and new.get("max_output_tokens") is None:
        new["max_output_tokens"] = FEW
    if isinstance(new.get("prompt"), list):
        new["prompt"] = new["prompt"][:FEW]
    return new


def _is_count(value: object) -> bool:
    """Whether it is more than a few: -1 is what the context has room for."""
    return (
        isinstance(value, int) and not isinstance(value, bool) and (value == -1 or FEW < value <= INT32_MAX)
    )


def _whole_numbers(value: Json) -> Json:
    """5.0 is an integer in JSON Schema; in a request it is written as 5."""
    if isinstance(value, dict):
        return {key: _whole_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def repaired(body: dict[str, Json]) -> dict[str, Json]:
    """The request without contradictions; values of a wrong type are unchanged."""
    new = dict(body)
    _drop_idle(new)
    _fit_counts(new)
    _small_ids(new)
    if isinstance(new.get("tools"), list):
        new["tools"] = _tools(new["tools"])
    _choose_among(new)
    if isinstance(new.get("messages"), list):
        new["messages"] = _conversation(new["messages"])
    return new


def _drop_idle(body: dict[str, Json]) -> None:
    if body.get("stream") in (None, False):
        body.pop("stream_options", None)
    if body.get("logprobs") in (None, False):
        body.pop("top_logprobs", None)
    if body.get("response_format") is not None:
        body.pop("structured_outputs", None)
    if any(body.get(name) is not None for name in ("structured_outputs", "response_format", "tools")):
        body.pop("ignore_eos", None)


def _fit_counts(body: dict[str, Json]) -> None:
    if body.get("max_completion_tokens") is not None:
        body.pop("max_tokens", None)
    for name in ("min_tokens", "best_of"):
        if isinstance(body.get(name), int):
            body.pop(name)
    if body.get("max_tokens") == 0 and "prompt" in body:
        body["echo"] = True


def _small_ids(body: dict[str, Json]) -> None:
    """Token ids that every vocabulary has."""
    for name in ("stop_token_ids", "prompt", "tokens"):
        if isinstance(body.get(name), list):
            body[name] = [_small(each) for each in body[name]]
    if isinstance(body.get("logit_bias"), dict):
        body["logit_bias"] = {
            (str(int(key) % 100) if key.isdecimal() and key.isascii() else key): bias
            for key, bias in body["logit_bias"].items()
        }


def _small(value: Json) -> Json:
    if isinstance(value, list):
        return [_small(each) for each in value]
    fits = isinstance(value, int) and not isinstance(value, bool) and value > 100
    return value % 100 if fits else value


def _tools(tools: list[Json]) -> list[Json]:
    """One tool per name, with parameters that are a valid schema."""
    kept: dict[str, Json] = {}
    tools = list(tools)
    for number, tool in enumerate(tuple(tools)):
        function = tool.get("function", tool.get("custom")) if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("parameters"), dict):
            plain = {**function, "parameters": {"type": "object"}}
            tools[number] = {**tool, "function": plain}
        if isinstance(function, dict) and isinstance(function.get("format"), dict):
            tools[number] = {**tool, "custom": {**function, "format": _input_format(function["format"])}}
        name = function.get("name") if isinstance(function, dict) else None
        kept.setdefault(name if isinstance(name, str) else str(number), tools[number])
    return list(kept.values())


def _input_format(given: dict[str, Json]) -> dict[str, Json]:
    """With a grammar that is valid in its syntax."""
    grammar = given.get("grammar")
    if not isinstance(grammar, dict) or not isinstance(grammar.get("definition"), str):
        return given
    valid = {"lark": "start: /[a-c]+/", "regex": "[a-c]+"}
    syntax = grammar.get("syntax")
    definition = valid.get(syntax, "x") if isinstance(syntax, str) else "x"
    return {**given, "grammar": {**grammar, "definition": definition}}


def _choose_among(body: dict[str, Json]) -> None:
    """Remove ``tool_choice`` without tools, and named functions."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict) or (choice == "required" and not body.get("tools")):
        body.pop("tool_choice")


def _conversation(messages: list[Json]) -> list[Json]:
    """Without tool calls and results, which would have to match, and with valid files."""
    kept = []
    for message in messages:
        if isinstance(message, dict) and message.get("role") == "tool":
            continue
        kept.append(_turn(message) if isinstance(message, dict) else message)
    return kept or [{"role": "user", "content": "Hi"}]


def _turn(message: dict[str, Json]) -> dict[str, Json]:
    new = {name: value for name, value in message.items() if name != "tool_calls"}
    if new.get("role") == "assistant" and new.get("content") is None:
        new["content"] = ""
    if isinstance(new.get("content"), list):
        new["content"] = [_part(part) for part in new["content"]]
    return new


def _part(part: Json) -> Json:
    if not isinstance(part, dict):
        return part
    new = dict(part)
    for name, file in (("image_url", PICTURE), ("audio_url", f"data:audio/wav;base64,{SOUND['data']}")):
        if isinstance(new.get(name), str):
            new[name] = file
    if isinstance(new.get("audio_url"), dict) and isinstance(new["audio_url"].get("url"), str):
        new["audio_url"] = {**new["audio_url"], "url": f"data:audio/wav;base64,{SOUND['data']}"}
    if isinstance(new.get("image_url"), dict) and isinstance(new["image_url"].get("url"), str):
        new["image_url"] = {**new["image_url"], "url": PICTURE}
    if isinstance(new.get("file"), dict) and isinstance(new["file"].get("file_data"), str):
        new["file"] = {**new["file"], "file_data": PICTURE}
    if isinstance(new.get("input_audio"), dict) and isinstance(new["input_audio"].get("data"), str):
        new["input_audio"] = {**new["input_audio"], **SOUND}
    return new
