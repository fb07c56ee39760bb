"""CORS: which web pages may use the API, and that they can read errors."""

import pytest
from packages.gateway.tests.conftest import FakeEngine, chat, gateway
from pydantic import ValidationError

from gemma_gateway.settings import GatewaySettings

PAGE = "https://app.example.org"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_page_with_an_allowed_origin(engine: FakeEngine) -> None:
    async with gateway(engine, keys="k", cors_origins=f"{PAGE}, https://other.example") as client:
        preflight = await client.options(
            "/v1/chat/completions",
            headers={
                "Origin": PAGE,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert "x-stainless-os" in preflight.headers["access-control-allow-headers"]
        answer = await client.post(
            "/v1/chat/completions", json=chat(), headers={"Origin": PAGE, **bearer("k")}
        )
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers


async def test_a_page_can_read_errors(engine: FakeEngine) -> None:
    async with gateway(engine, keys="k", cors_origins=PAGE, max_body_bytes=100) as client:
        origin = {"Origin": PAGE}
        engine.script = [ZeroDivisionError()]
        known = origin | bearer("k")
        for response, status in (
            (await client.get("/v1/models", headers=origin), 401),
            (await client.get("/nope", headers=known), 404),
            (await client.post("/v1/chat/completions", content=b"x" * 200, headers=known), 413),
            (await client.post("/v1/chat/completions", json=chat(), headers=known), 500),
        ):
            assert response.status_code == status
            assert response.headers["access-control-allow-origin"] == PAGE


async def test_pages_with_other_origins_and_without_a_list(engine: FakeEngine) -> None:
    async with gateway(engine, cors_origins=PAGE) as client:
        answer = await client.get("/v1/models", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers
    async with gateway(engine) as client:
        answer = await client.get("/v1/models", headers={"Origin": PAGE})
        assert "access-control-allow-origin" not in answer.headers
    async with gateway(engine, cors_origins="*") as client:
        answer = await client.get("/v1/models", headers={"Origin": PAGE})
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "origins", ["app.example.org", "https://app.example.org/", "https://*.example.org", "null"]
)
def test_wrong_origins(origins: str) -> None:
    with pytest.raises(ValidationError, match="not an origin"):
        GatewaySettings(cors_origins=origins)
