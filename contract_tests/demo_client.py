"""A client of a server with the bundled model, and helpers for its requests and responses."""

import base64
from dataclasses import dataclass
from typing import Any

import httpx


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
        """The model's description of an image."""
        image = {"type": "image_url", "image_url": {"url": url}}
        ask = {"type": "text", "text": "What do you see in this image?"}
        return self.say([ask, image], max_tokens=24)

    def hear(self, data: bytes) -> httpx.Response:
        """A question about an audio clip."""
        part = {"type": "input_audio", "input_audio": {"data": b64(data), "format": "wav"}}
        return self.chat([part, {"type": "text", "text": "How many beeps?"}])


def ok(response: httpx.Response) -> dict[str, Any]:
    """The response, which must have status 200."""
    assert response.status_code == 200, response.text[:400]
    return dict(response.json())


def refused(response: httpx.Response) -> str:
    """The message of a response, which must have status 400."""
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
