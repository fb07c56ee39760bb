"""The server under test: our stack, started for the tests, or the one at ``CONTRACT_BASE_URL``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from checks import HttpExchange, problems

FOREIGN = os.environ.get("CONTRACT_BASE_URL", "")
KEY = os.environ.get("CONTRACT_API_KEY", "none")
MODEL = os.environ.get("CONTRACT_MODEL", "gemma3n")
LONG = os.environ.get("CONTRACT_PROFILE") == "long"
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
HI: Any = [{"role": "user", "content": "Hi"}]


@dataclass(frozen=True)
class Server:
    """The address and model of a server. ``url`` is without ``/v1``."""

    url: str
    key: str = KEY
    model: str = MODEL

    @property
    def base_url(self) -> str:
        """What an OpenAI SDK is given."""
        return f"{self.url}/v1"

    def http(self, transport: httpx.BaseTransport | None = None) -> httpx.Client:
        """A client of it."""
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, transport=transport)


class Api:
    """Sends requests, and checks every response against the contract.

    Args:
        http: what carries the requests.
        model: what a body without one asks for.
    """

    def __init__(self, http: httpx.Client, model: str) -> None:
        self.http, self.model = http, model

    def ask(self, path: str, body: Mapping[str, Any], expect: int = 200) -> HttpExchange:
        """POST a body; the response, which must have this status and pass all checks."""
        request = {"model": self.model, **body}
        answer = self.http.post(path, json=request)
        return self._checked("post", path, request, answer, expect)

    def get(self, path: str, template: str, expect: int = 200) -> HttpExchange:
        """GET a path; ``template`` is how the document writes it."""
        return self._checked("get", template, None, self.http.get(path), expect)

    def chat(self, expect: int = 200, **body: Any) -> HttpExchange:
        """A chat completion of at most eight tokens, where the body does not say otherwise."""
        limit = {} if "max_completion_tokens" in body else {"max_tokens": 8}
        return self.ask(CHAT, {"messages": HI, **limit, **body}, expect)

    def complete(self, expect: int = 200, **body: Any) -> HttpExchange:
        """A completion of at most eight tokens, where the body does not say otherwise."""
        return self.ask(COMPLETIONS, {"prompt": "Once upon a time", "max_tokens": 8, **body}, expect)

    def respond(self, expect: int = 200, **body: Any) -> HttpExchange:
        """A response of at most eight tokens, where the body does not say otherwise."""
        return self.ask(RESPONSES, {"input": "Hi", "max_output_tokens": 8, **body}, expect)

    def _checked(
        self, method: str, path: str, request: Any, answer: httpx.Response, expect: int
    ) -> HttpExchange:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        exchange = HttpExchange(method, path, request, answer.status_code, headers, answer.content)
        assert answer.status_code == expect, answer.text[:500]
        found = problems(exchange)
        assert not found, "\n".join([f"{method} {path} {request}", *found, answer.text[:500]])
        return exchange
