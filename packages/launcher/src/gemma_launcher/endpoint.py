"""An OpenAI-compatible server, as a client sees it: its address, its models, its errors in one sentence."""

import os
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import openai
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

from gemma_launcher.banner import api_url
from gemma_launcher.errors import CannotStart
from gemma_launcher.ports import is_loopback
from gemma_launcher.settings import Settings

CONNECT_S = 10.0
ANSWER_S = 600.0
"""The longest silence in an answer: a CPU may need minutes for a long prompt."""


class CannotAnswer(CannotStart):
    """The server did not answer as hoped, in one sentence."""


def base_url(settings: Settings, given: str | None) -> str:
    """The address under which ``/chat/completions`` is found.

    Args:
        settings: for the server of the environment, or the gateway of this machine, when none is given.
        given: such as ``http://host:8080/v1``; as in ``base_url_of``.

    Raises:
        CannotStart: it is no address.
    """
    given = given or settings.openai_base_url
    return base_url_of(given) if given else f"{api_url(settings)}/v1"


def base_url_of(given: str) -> str:
    """The same address, with ``/v1`` when it has no path.

    Raises:
        CannotStart: it is none.
    """
    try:
        parts = urlsplit(given)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is none
        is_one = False
    if not is_one:
        raise CannotStart(f"{given} is no address of a server; it looks like http://HOST:8080/v1")
    path = parts.path.rstrip("/") or "/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def connect(url: str) -> openai.OpenAI:
    """A client that does not try again by itself: what fails is told."""
    return openai.OpenAI(http_client=DefaultHttpxClient(trust_env=not _is_here(url)), **_common(url))


def connect_async(url: str) -> openai.AsyncOpenAI:
    """As ``connect``, for many requests at once."""
    limits = openai.DEFAULT_CONNECTION_LIMITS
    transport = DefaultAsyncHttpxClient(trust_env=not _is_here(url), limits=limits)
    return openai.AsyncOpenAI(http_client=transport, **_common(url))


def _common(url: str) -> dict[str, Any]:
    return {
        "base_url": url,
        "api_key": os.environ.get("OPENAI_API_KEY") or "none",
        "max_retries": 0,
        "timeout": openai.Timeout(ANSWER_S, connect=CONNECT_S),
    }


def _is_here(url: str) -> bool:
    """Whether it is on this machine: a proxy that is meant for the world must not see it."""
    return is_loopback(urlsplit(url).hostname or "")


def pick_model(client: openai.OpenAI, wanted: str | None) -> str:
    """The model to ask for: the wanted one, else the server's first.

    Raises:
        CannotAnswer: the server cannot be asked, or has none.
    """
    if wanted:
        return wanted
    try:
        names = [model.id for model in client.models.list()]
    except openai.OpenAIError as error:
        raise explained(error, str(client.base_url)) from None
    if not names:
        raise CannotAnswer(f"the server at {client.base_url} has no model")
    return names[0]


def explained(error: Exception, url: str) -> CannotAnswer:
    """What the client's error means, in one sentence."""
    match error:
        case openai.APITimeoutError():
            sentence = f"{url} did not answer in time"
        case openai.APIConnectionError():
            advice = "start one with `gemma-triton serve`, or give --base-url"
            sentence = f"no server answers at {url}{_cause(error)}; {advice}"
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            sentence = f"{url} does not let us in ({said(error)}); set OPENAI_API_KEY"
        case openai.APIStatusError():
            sentence = f"{url} answered {error.status_code}: {said(error)}"
        case _:
            sentence = f"the answer broke off: {said(error)}"
    return CannotAnswer(sentence)


def said(error: Exception) -> str:
    """The server's own words, on one line and without their full stop."""
    body = getattr(error, "body", None)
    words = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(words or error).split()).rstrip(".") or type(error).__name__


def _cause(error: Exception) -> str:
    cause = error.__cause__ or error.__context__
    return f" ({' '.join(str(cause).split())})" if cause and str(cause) else ""
