"""Requests that once failed in use, with the correct results; ``test_cases.py`` runs them.

A case is a function that takes a ``Demo`` and asserts the correct result. The bundled model must be served,
because some cases check the text of a response.
"""

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from audio_files import float_wav, pcm_wav
from demo_client import Demo, b64, closed, json_schema, ok, refused

HI = [{"role": "user", "content": "Hi"}]
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}

# No-op values and fields without effect.

NULL = (
    "tools",
    "tool_choice",
    "response_format",
    "parallel_tool_calls",
    "user",
    "safety_identifier",
    "functions",
    "function_call",
    "prompt_cache_key",
)
NO_OP_VALUES: dict[str, Any] = {
    **dict.fromkeys(NULL),
    "stop": [],
    "skip_special_tokens": True,
    "use_beam_search": False,
    "include_reasoning": True,
    "length_penalty": 1.0,
    "chat_template_kwargs": {"enable_thinking": False},
    "verbosity": "low",
    "store": True,
    "echo": False,
}


def null_nested(demo: Demo) -> None:
    """Null in a tool and in a message."""
    tool = {"type": "function", "function": {"name": "f", "description": None, "parameters": None}}
    ok(demo.chat([{"role": "user", "content": "Hi", "name": None}], tools=[tool]))


def history_from_other_servers(demo: Demo) -> None:
    """A response is sent back unchanged."""
    call = {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    messages = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": None,
            "annotations": [],
            "tool_calls": [call],
            "id": "msg_1",
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "ok"},
    ]
    ok(demo.chat(messages, tools=[{"type": "function", "function": FUNCTION}]))


def usage_in_every_chunk(demo: Demo) -> None:
    """``continuous_usage_stats``."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    lines = demo.chat("Hi", stream=True, stream_options=options).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert chunks
    assert all(chunk.get("usage") for chunk in chunks)


def final_message_is_continued(demo: Demo) -> None:
    """``continue_final_message``."""
    messages = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "one two"}]
    ok(demo.chat(messages, continue_final_message=True, add_generation_prompt=False))


def overflow_message_has_the_known_words(demo: Demo) -> None:
    """litellm and LangChain look for these words."""
    message = refused(demo.chat("a b c " * 30_000))
    assert "maximum context length is" in message
    assert "prompt is too long" in message


def models_report_max_model_len(demo: Demo) -> None:
    """``max_model_len``."""
    (model, *_) = httpx.get(f"{demo.url}/v1/models", timeout=30, trust_env=False).json()["data"]
    assert model["max_model_len"] > 0


# Files.

BASE64_VARIANTS: dict[str, Callable[[bytes], str]] = {
    "line breaks": lambda data: "image/png;base64," + base64.encodebytes(data).decode().replace("\n", "\r\n"),
    "no padding": lambda data: "image/png;base64," + b64(data + b"\0").rstrip("="),
    "space first": lambda data: "image/png;base64, " + b64(data),
    "URL-safe": lambda data: "image/png;base64," + base64.urlsafe_b64encode(data).decode(),
    "percent": lambda data: "image/png;base64," + b64(data).replace("+", "%2B").replace("/", "%2F"),
    "octet stream": lambda data: "application/octet-stream;base64," + b64(data),
    "parameters": lambda data: "image/png;name=a.png;base64," + b64(data),
}
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP")


def audio_of_one_window(demo: Demo) -> None:
    """512 samples are the minimum length."""
    ok(demo.hear(pcm_wav(512)))


def audio_with_huge_samples(demo: Demo) -> None:
    """Finite samples that overflow in the features."""
    refused(demo.hear(float_wav([3e38 * (-1) ** i for i in range(16_000)])))


# Right answers.


def json_that_fits_is_not_truncated(demo: Demo) -> None:
    """JSON that fits into the limit is not truncated."""
    form, ask = (
        json_schema(closed(n={"type": "integer"})),
        "What is 9 plus 8? Answer as JSON.",
    )
    free, short = (demo.say(ask, max_tokens=tokens, response_format=form) for tokens in (64, 14))
    assert short == free


def text_parts_keep_their_spaces(demo: Demo) -> None:
    """Text parts are joined without separator."""
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "world"}]
    both, one = (
        ok(demo.post("/tokenize", {"messages": [{"role": "user", "content": content}]}))["tokens"]
        for content in (parts, "Hello world")
    )
    assert both == one


def exclusive_bounds_are_enforced(demo: Demo) -> None:
    """Exclusive bounds at zero."""
    form = json_schema(closed(x={"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}))
    for seed in range(6):
        said = demo.say("Give x.", response_format=form, max_tokens=32, temperature=1, seed=seed)
        assert 0 < json.loads(said)["x"] <= 0.5


COMMON_SCHEMAS: dict[str, dict[str, Any]] = {
    "format uri-reference": {"type": "string", "format": "uri-reference"},
    "format path": {"type": "string", "format": "path"},
    "uniqueItems": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    "oneOf": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    "if then": {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "if": {"properties": {"a": {"const": True}}},
        "then": {"required": ["b"]},
    },
}


def strict_schemas_have_no_additional_properties(demo: Demo) -> None:
    """``strict`` implies ``additionalProperties: false``."""
    form = {
        "type": "object",
        "properties": {"color": {"type": "string"}, "size": {"type": "integer"}},
    }
    said = demo.say("What day is it?", response_format=json_schema(form), max_tokens=48)
    assert set(json.loads(said)) <= {"color", "size"}


def errors_name_the_schema(demo: Demo) -> None:
    """The message does not name options of a library."""
    assert "NoExtensionBias" not in refused(demo.chat(response_format=json_schema({"$ref": "#"})))


def grammar_with_many_optional_parts(demo: Demo) -> None:
    """A grammar that is too large is a client error."""
    grammar = "start: " + '"a"? ' * 3000
    assert demo.chat(structured_outputs={"grammar": grammar}).status_code in (200, 400)


def extreme_penalty(demo: Demo) -> None:
    """The largest penalty, with which responses are garbage."""
    refused(demo.chat(repetition_penalty=1e-300))


def first_echoed_token_has_no_logprob(demo: Demo) -> None:
    """There is no token before it."""
    body = {"prompt": "Hello, my name is", "echo": True, "logprobs": 1, "max_tokens": 2}
    assert ok(demo.post("/v1/completions", body))["choices"][0]["logprobs"]["token_logprobs"][0] is None


def seed_with_concurrent_requests(demo: Demo) -> None:
    """A seed gives the same text whatever else runs."""

    def ask(seed: int, words: int = 0) -> str:
        content = "word " * words if words else "Tell me a story."
        return demo.say(content, temperature=2, top_k=0, top_p=1, seed=seed, max_tokens=40)

    alone = ask(42)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(ask, i, 20 * i) if i % 2 else pool.submit(ask, 42) for i in range(24)]
        assert {job.result() for job in jobs[::2]} == {alone}


CASES: tuple[Callable[[Demo], None], ...] = (
    null_nested,
    history_from_other_servers,
    usage_in_every_chunk,
    final_message_is_continued,
    overflow_message_has_the_known_words,
    models_report_max_model_len,
    audio_of_one_window,
    audio_with_huge_samples,
    json_that_fits_is_not_truncated,
    text_parts_keep_their_spaces,
    exclusive_bounds_are_enforced,
    strict_schemas_have_no_additional_properties,
    errors_name_the_schema,
    grammar_with_many_optional_parts,
    extreme_penalty,
    first_echoed_token_has_no_logprob,
    seed_with_concurrent_requests,
)
