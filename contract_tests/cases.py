"""Requests that went wrong in use, each with what is right; ``test_cases.py`` runs them.

A case is a function of a ``Demo`` that asserts what is right. The bundled model must be served, because some
cases look at what it says.
"""

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from clips import float_wav, pcm_wav

HI = [{"role": "user", "content": "Hi"}]
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}


@dataclass(frozen=True)
class Demo:
    """A server of the bundled model.

    Args:
        url: of the API, without ``/v1``.
    """

    url: str

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """POST a JSON body."""
        return httpx.post(self.url + path, json={"model": "gemma3n", **body}, timeout=120, trust_env=False)

    def chat(self, content: Any = "Hello!", **fields: Any) -> httpx.Response:
        """A chat completion of at most eight tokens; ``content`` is one message's, or all messages."""
        conversation = isinstance(content, list) and content and "role" in content[0]
        messages = content if conversation else [{"role": "user", "content": content}]
        return self.post(
            "/v1/chat/completions", {"messages": messages, "max_tokens": 8, "temperature": 0, **fields}
        )

    def say(self, content: Any, **fields: Any) -> str:
        """The text of a chat completion."""
        return str(ok(self.chat(content, **fields))["choices"][0]["message"]["content"])

    def see(self, url: str) -> str:
        """What the model says about an image."""
        image = {"type": "image_url", "image_url": {"url": url}}
        ask = {"type": "text", "text": "What do you see in this image?"}
        return self.say([ask, image], max_tokens=24)

    def hear(self, data: bytes) -> httpx.Response:
        """A question about a clip."""
        part = {"type": "input_audio", "input_audio": {"data": b64(data), "format": "wav"}}
        return self.chat([part, {"type": "text", "text": "How many beeps?"}])


def ok(response: httpx.Response) -> dict[str, Any]:
    """The answer, which was given."""
    assert response.status_code == 200, response.text[:400]
    return dict(response.json())


def refused(response: httpx.Response) -> str:
    """Why a request was refused with 400, as it should be."""
    assert response.status_code == 400, response.text[:400]
    return str(response.json()["error"]["message"])


def b64(data: bytes) -> str:
    """Base64 as text."""
    return base64.b64encode(data).decode()


def json_schema(schema: dict[str, Any], strict: bool = True) -> dict[str, Any]:
    """A ``response_format``."""
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": strict}}


def closed(**properties: Any) -> dict[str, Any]:
    """An object schema with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


# Values that ask for nothing, and fields that change nothing.

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
HARMLESS: dict[str, Any] = {
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


def history_as_written_by_servers(demo: Demo) -> None:
    """An answer of a server is sent back as it came."""
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


def a_started_answer_is_continued(demo: Demo) -> None:
    """``continue_final_message``."""
    messages = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "one two"}]
    ok(demo.chat(messages, continue_final_message=True, add_generation_prompt=False))


def overflow_in_known_words(demo: Demo) -> None:
    """litellm and LangChain look for these words."""
    message = refused(demo.chat("a b c " * 30_000))
    assert "maximum context length is" in message
    assert "prompt is too long" in message


def models_report_their_length(demo: Demo) -> None:
    """``max_model_len``."""
    (model, *_) = httpx.get(f"{demo.url}/v1/models", timeout=30, trust_env=False).json()["data"]
    assert model["max_model_len"] > 0


# Files.

FORMS: dict[str, Callable[[bytes], str]] = {
    "line breaks": lambda data: "image/png;base64," + base64.encodebytes(data).decode().replace("\n", "\r\n"),
    "no padding": lambda data: "image/png;base64," + b64(data + b"\0").rstrip("="),
    "space first": lambda data: "image/png;base64, " + b64(data),
    "URL-safe": lambda data: "image/png;base64," + base64.urlsafe_b64encode(data).decode(),
    "percent": lambda data: "image/png;base64," + b64(data).replace("+", "%2B").replace("/", "%2F"),
    "octet stream": lambda data: "application/octet-stream;base64," + b64(data),
    "parameters": lambda data: "image/png;name=a.png;base64," + b64(data),
}
KINDS = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP")


def clip_of_one_window(demo: Demo) -> None:
    """512 samples are the shortest that the model can hear."""
    ok(demo.hear(pcm_wav(512)))


def clip_too_loud(demo: Demo) -> None:
    """Finite samples that overflow in the features."""
    refused(demo.hear(float_wav([3e38 * (-1) ** i for i in range(16_000)])))


# Right answers.


def closed_only_when_needed(demo: Demo) -> None:
    """A document that fits is not cut short."""
    form, ask = (
        json_schema(closed(n={"type": "integer"})),
        "What is 9 plus 8? Answer as JSON.",
    )
    free, short = (demo.say(ask, max_tokens=tokens, response_format=form) for tokens in (64, 14))
    assert short == free


def parts_keep_their_space(demo: Demo) -> None:
    """Text parts are the text that they make."""
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "world"}]
    both, one = (
        ok(demo.post("/tokenize", {"messages": [{"role": "user", "content": content}]}))["tokens"]
        for content in (parts, "Hello world")
    )
    assert both == one


def bounds_hold(demo: Demo) -> None:
    """Exclusive bounds at zero."""
    form = json_schema(closed(x={"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}))
    for seed in range(6):
        said = demo.say("Give x.", response_format=form, max_tokens=32, temperature=1, seed=seed)
        assert 0 < json.loads(said)["x"] <= 0.5


REAL: dict[str, dict[str, Any]] = {
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


def strict_schema_is_closed(demo: Demo) -> None:
    """``strict`` closes an object that does not say so itself."""
    form = {
        "type": "object",
        "properties": {"color": {"type": "string"}, "size": {"type": "integer"}},
    }
    said = demo.say("What day is it?", response_format=json_schema(form), max_tokens=48)
    assert set(json.loads(said)) <= {"color", "size"}


def errors_speak_of_the_schema(demo: Demo) -> None:
    """No library's own option is named."""
    assert "NoExtensionBias" not in refused(demo.chat(response_format=json_schema({"$ref": "#"})))


def grammar_of_many_optionals(demo: Demo) -> None:
    """Too large a grammar is the client's mistake."""
    grammar = "start: " + '"a"? ' * 3000
    assert demo.chat(structured_outputs={"grammar": grammar}).status_code in (200, 400)


def penalty_extreme(demo: Demo) -> None:
    """A penalty that makes garbage of every answer."""
    refused(demo.chat(repetition_penalty=1e-300))


def first_echoed_token_has_no_logprob(demo: Demo) -> None:
    """Nothing comes before it."""
    body = {"prompt": "Hello, my name is", "echo": True, "logprobs": 1, "max_tokens": 2}
    assert ok(demo.post("/v1/completions", body))["choices"][0]["logprobs"]["token_logprobs"][0] is None


def seed_in_company(demo: Demo) -> None:
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
    history_as_written_by_servers,
    usage_in_every_chunk,
    a_started_answer_is_continued,
    overflow_in_known_words,
    models_report_their_length,
    clip_of_one_window,
    clip_too_loud,
    closed_only_when_needed,
    parts_keep_their_space,
    bounds_hold,
    strict_schema_is_closed,
    errors_speak_of_the_schema,
    grammar_of_many_optionals,
    penalty_extreme,
    first_echoed_token_has_no_logprob,
    seed_in_company,
)
