"""A client of any OpenAI-compatible server: its address, its models, its errors as one sentence."""

import os
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import openai
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

from gemma_launcher.addresses import api_url, is_loopback
from gemma_launcher.errors import CommandError
from gemma_launcher.settings import LauncherSettings

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 600.0
"""The longest pause within a response: on a CPU, a long prompt may take minutes."""


class RequestFailed(CommandError):
    """The server did not send a usable response."""


def resolve_base_url(settings: LauncherSettings) -> str:
    """The base URL of the server: the configured one, otherwise that of the gateway on this machine.

    Raises:
        CommandError: the configured URL is not valid.
    """
    given = settings.openai_base_url
    return normalize_base_url(given) if given else f"{api_url(settings)}/v1"


def normalize_base_url(given: str) -> str:
    """The URL, with ``/v1`` added if it has no path.

    Raises:
        CommandError: it is not valid.
    """
    try:
        parts = urlsplit(given)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # unbalanced brackets, or an invalid port
        is_valid = False
    if not is_valid:
        raise CommandError(f"{given} is not a valid base URL; an example is http://HOST:8080/v1")
    path = parts.path.rstrip("/") or "/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def create_client(url: str) -> openai.OpenAI:
    """A client without automatic retries, so that every failure is reported."""
    return openai.OpenAI(http_client=DefaultHttpxClient(trust_env=not is_local(url)), **_options(url))


def create_async_client(url: str) -> openai.AsyncOpenAI:
    """As ``create_client``, for concurrent requests."""
    http_client = DefaultAsyncHttpxClient(
        trust_env=not is_local(url), limits=openai.DEFAULT_CONNECTION_LIMITS
    )
    return openai.AsyncOpenAI(http_client=http_client, **_options(url))


def _options(url: str) -> dict[str, Any]:
    return {
        "base_url": url,
        "api_key": os.environ.get("OPENAI_API_KEY") or "none",
        "max_retries": 0,
        "timeout": openai.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
    }


def is_local(url: str) -> bool:
    """Whether the server is on this machine, so that no proxy must be used."""
    return is_loopback(urlsplit(url).hostname or "")


def select_model(client: openai.OpenAI, wanted: str | None) -> str:
    """The wanted model, otherwise the first model of the server.

    Raises:
        RequestFailed: the server does not list its models, or has none.
    """
    if wanted:
        return wanted
    try:
        names = [model.id for model in client.models.list()]
    except openai.OpenAIError as error:
        raise to_command_error(error, str(client.base_url)) from None
    if not names:
        raise RequestFailed(f"the server at {client.base_url} has no model")
    return names[0]


def to_command_error(error: Exception, url: str) -> RequestFailed:
    """The client's exception as one sentence."""
    match error:
        case openai.APITimeoutError():
            sentence = f"{url} did not respond in time"
        case openai.APIConnectionError():
            cause = error.__cause__ or error.__context__
            reason = f" ({' '.join(str(cause).split())})" if cause and str(cause) else ""
            advice = "start one with `gemma-triton serve`, or use --base-url"
            sentence = f"there is no server at {url}{reason}; {advice}"
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            sentence = f"{url} denies access ({error_message(error)}); set OPENAI_API_KEY"
        case openai.APIStatusError():
            sentence = f"{url} returned status {error.status_code}: {error_message(error)}"
        case _:
            sentence = f"the response was interrupted: {error_message(error)}"
    return RequestFailed(sentence)


def error_message(error: Exception) -> str:
    """The server's error message, on one line and without its full stop."""
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(message or error).split()).rstrip(".") or type(error).__name__
