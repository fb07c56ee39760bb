"""API keys, host names, and the headers of every response."""

import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import httpx2  # what the SDK stands on
import openai
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from packages.gateway.tests.anthropic_helpers import assert_anthropic_error
from packages.gateway.tests.conftest import FakeEngine, assert_error, chat, gateway, post
from pydantic import ValidationError

from gemma_gateway import auth
from gemma_gateway.app import create_app
from gemma_gateway.auth import HEALTH, Keys, warn_if_open
from gemma_gateway.settings import GatewaySettings

KEYS = ("sk-first-Key", "sk-second", "x")


@pytest.fixture
async def closed(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway that asks for a key."""
    async with gateway(engine, keys=",".join(KEYS)) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_every_configured_key_is_accepted(closed: httpx.AsyncClient, key: str, scheme: str) -> None:
    response = await closed.get("/v1/models", headers={"Authorization": f"{scheme} {key}"})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/metrics"])
@pytest.mark.parametrize("authorization", [{}, bearer("sk-first-Keyy"), {"Authorization": "Basic x"}])
async def test_a_key_in_the_header_of_anthropics_clients(
    closed: httpx.AsyncClient, path: str, authorization: dict[str, str]
) -> None:
    """Its clients may send a token of another service in ``Authorization``, besides the key."""
    response = await closed.get(path, headers={**authorization, "x-api-key": KEYS[0]})
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/messages/batches"])
async def test_the_messages_api_has_errors_of_its_own(closed: httpx.AsyncClient, path: str) -> None:
    assert_anthropic_error(await closed.post(path, json={}), 401, "authentication_error")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("sk-first-key"),
        bearer("SK-FIRST-KEY"),
        bearer("sk-first-Ke"),
        bearer("sk-first-Keyy"),
        bearer("sk-first-Key,sk-second"),
        bearer("sk-first-Key x"),
        bearer("schlüssel"),
        {"Authorization": "sk-first-Key"},
        {"Authorization": "Basic sk-first-Key"},
        {"X-Api-Key": "sk-first-Keyy"},
        {**bearer("sk-first-Keyy"), "X-Api-Key": "sk-first-Ke"},
    ],
)
async def test_wrong_missing_and_other_case_keys(
    closed: httpx.AsyncClient,
    engine: FakeEngine,
    headers: Mapping[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    given = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    response = await closed.post("/v1/chat/completions", json=chat(), headers=given)
    assert_error(response, 401, None, "invalid_api_key")
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert response.headers["www-authenticate"] == "Bearer"
    assert engine.asked == []
    assert "first" not in (response.text + caplog.text).lower()


async def test_the_sdk_raises_its_own_exceptions(engine: FakeEngine) -> None:
    transport = httpx2.ASGITransport(create_app(GatewaySettings(keys="k"), engine))
    async with httpx2.AsyncClient(transport=transport) as http:
        client = openai.AsyncOpenAI(api_key="wrong", base_url="http://localhost/v1", http_client=http)
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.models.list()
    assert caught.value.code == "invalid_api_key"


OURS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/v1/models/gemma3n",
    "/tokenize",
    "/detokenize",
)
OTHERS = ("/metrics", "/", "/nope", "/docs", "/openapi.json")
ODD = ("/HEALTH", "/healthy", "/health-x", "//health", "/health/", "/health/live/x", "/health%2Flive/..%2f")


async def test_health_checks_need_no_key(closed: httpx.AsyncClient) -> None:
    for path in HEALTH:
        assert (await closed.get(path)).status_code == 200


@pytest.mark.parametrize("path", [*OURS, *OTHERS, *ODD])
async def test_everything_but_health_checks_needs_a_key(closed: httpx.AsyncClient, path: str) -> None:
    """Allowed hosts, other hosts, and spellings that a careless check would accept."""
    where = httpx.URL(scheme="http", host="localhost", raw_path=path.encode())
    for method in ("GET", "POST", "OPTIONS", "HEAD"):
        assert (await closed.send(closed.build_request(method, where))).status_code == 401, method


async def test_a_refused_body_is_not_read(engine: FakeEngine) -> None:
    """Nor parsed: no error is reported about it."""

    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        for piece in (b"{", b"}"):
            read.append(piece)
            yield piece

    async with gateway(engine, keys="k") as client:
        response = await client.post("/v1/chat/completions", content=body())
    assert_error(response, 401, None, "invalid_api_key")
    assert read == []


class Counting:
    """Replaces the comparison of two digests."""

    def __init__(self) -> None:
        self.lengths: list[tuple[int, int]] = []

    def __call__(self, one: bytes, other: bytes) -> bool:
        self.lengths.append((len(one), len(other)))
        return one == other


@given(
    key=st.binary(max_size=40)
    | st.sampled_from([known.encode()[:length] for known in KEYS for length in range(13)])
)
@hypothesis_settings(deadline=None, max_examples=50)
def test_the_comparison_does_not_depend_on_the_key(key: bytes) -> None:
    """So it reveals nothing by its time: each digest is compared once, completely, by ``compare_digest``."""
    with pytest.MonkeyPatch.context() as patch:
        comparison = Counting()
        patch.setattr(auth, "compare_digest", comparison)
        Keys(KEYS).find(key)
    assert comparison.lengths == [(32, 32)] * len(KEYS)


def test_the_index_of_a_key() -> None:
    assert [Keys(KEYS).find(key.encode()) for key in (*KEYS, "other", "")] == [0, 1, 2, None, None]


def test_keys_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nsk-a\n\n  sk-b  \n")
    assert GatewaySettings(keys="sk-c, sk-d", keys_file=file).api_keys == ("sk-c", "sk-d", "sk-a", "sk-b")
    assert GatewaySettings().api_keys == ()


@pytest.mark.parametrize(
    ("keys", "content"), [(",", None), (" , ", None), ("a b", None), ("schlüssel", None), (None, "# none\n")]
)
def test_a_mistake_in_the_keys_is_an_error(keys: str | None, content: str | None, tmp_path: Path) -> None:
    """An invalid value must neither disable the keys nor be printed."""
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValidationError) as caught:
        GatewaySettings(keys=keys, keys_file=None if content is None else file)
    assert "schlüssel" not in caught.value.errors()[0]["msg"]


def test_a_missing_file_of_keys_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="cannot be read"):
        GatewaySettings(keys_file=tmp_path / "nope")


def test_keys_are_not_shown() -> None:
    assert "sk-secret" not in repr(GatewaySettings(keys="sk-secret"))


@pytest.mark.parametrize(
    ("host", "keys", "warned"),
    [
        ("127.0.0.1", None, False),
        ("::1", None, False),
        ("localhost", None, False),
        ("0.0.0.0", None, True),
        ("10.0.0.1", None, True),
        ("0.0.0.0", "k", False),
    ],
)
def test_a_warning_is_logged_without_keys(
    host: str, keys: str | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_if_open(GatewaySettings(host=host, keys=keys))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warned


@pytest.mark.parametrize(
    ("settings", "host", "allowed"),
    [
        ({}, "localhost:8080", True),
        ({}, "LOCALHOST", True),
        ({}, "127.0.0.1:8080", True),
        ({}, "[::1]:8080", True),
        ({}, "192.168.0.7", True),
        ({}, "evil.example", False),
        ({}, "evil.example:8080", False),
        ({}, "localhost.evil.example", False),
        ({}, "127.0.0.1.evil.example", False),
        ({}, "", False),
        ({}, "[", False),
        ({"keys": "k"}, "evil.example", True),
        ({"host": "0.0.0.0"}, "evil.example", True),
        ({"allowed_hosts": "*"}, "evil.example", True),
        ({"allowed_hosts": "good.example"}, "api.good.example.", True),
        ({"allowed_hosts": "good.example"}, "badgood.example", False),
        ({"allowed_hosts": "good.example", "host": "0.0.0.0", "keys": "k"}, "evil.example", False),
    ],
)
async def test_host_names(engine: FakeEngine, settings: dict[str, str], host: str, allowed: bool) -> None:
    """A web page whose name resolves to 127.0.0.1 cannot use the gateway of its visitor."""
    async with gateway(engine, **settings) as client:
        response = await client.get("/v1/models", headers={"Host": host, **bearer("k")})
        if allowed:
            assert response.status_code == 200
        else:
            assert "API_ALLOWED_HOSTS" in assert_error(response, 403, None, "host_not_allowed")
            assert response.json()["error"]["type"] == "request_forbidden"
        assert (await client.get("/health", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("domains", ["*.example.org", "https://example.org", "a b"])
def test_wrong_domains(domains: str) -> None:
    with pytest.raises(ValidationError, match="not a host name"):
        GatewaySettings(media_domains=domains)


@pytest.mark.parametrize("path", ["/v1/models", "/nope", "/health/live"])
async def test_every_response_has_the_common_headers(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    assert headers["openai-version"] == "2020-10-01"
    assert headers["openai-processing-ms"].isdecimal()
    assert headers["x-request-id"]


async def test_a_key_is_sufficient_for_a_chat(closed: httpx.AsyncClient) -> None:
    closed.headers.update(bearer("x"))
    assert (await post(closed, chat())).status_code == 200


async def salts(client: httpx.AsyncClient, engine: FakeEngine, key: str, **rest: object) -> str | None:
    """The salt that reaches the model, the same for chat and completions."""
    engine.asked.clear()
    headers = bearer(key) if key else {}
    said = chat() | rest
    completed = {"model": said["model"], "prompt": ["a", "b"]} | rest
    for path, body in (("/v1/chat/completions", said), ("/v1/completions", completed)):
        assert (await client.post(path, json=body, headers=headers)).status_code == 200
    (salt,) = {request.options.cache_salt for request in engine.asked}
    assert len(engine.asked) == 3
    return salt


async def test_each_key_has_its_own_cache_salt(closed: httpx.AsyncClient, engine: FakeEngine) -> None:
    found = [await salts(closed, engine, key) for key in KEYS]
    assert len(set(found)) == len(KEYS)
    assert found == [await salts(closed, engine, key) for key in KEYS]
    assert all(salt and key not in salt for salt, key in zip(found[:2], KEYS[:2], strict=True))


async def test_a_client_salt_divides_only_the_cache_of_its_own_key(
    closed: httpx.AsyncClient, engine: FakeEngine
) -> None:
    """Not even with the salt of another key as its own salt."""
    plain = [await salts(closed, engine, key) for key in KEYS]
    wanted = ["ward 1", "ward 2", *map(str, plain)]
    found = {await salts(closed, engine, key, cache_salt=salt) for key in KEYS for salt in wanted}
    assert len(found) == len(KEYS) * len(wanted)
    assert not found & set(plain)
    assert await salts(closed, engine, KEYS[0], cache_salt=None) == plain[0]
    assert await salts(closed, engine, KEYS[0], cache_salt="") == plain[0]


async def test_without_keys_the_client_salt_is_passed_on(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    assert await salts(client, engine, "") is None
    assert await salts(client, engine, "", cache_salt="ward 1") == "ward 1"
    response = await post(client, chat() | {"cache_salt": "x" * 513})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "cache_salt")
