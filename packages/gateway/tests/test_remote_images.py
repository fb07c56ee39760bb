"""Images by URL in requests: their order, and the parameter that an error names."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from packages.gateway.tests.conftest import FakeEngine, assert_error, chat, post
from packages.gateway.tests.hostile_server import ANY, BRIEF, Net, hostile
from packages.gateway.tests.message_helpers import image_part, png, text_part

from gemma_gateway.app import create_app
from gemma_gateway.errors import BadRequest
from gemma_gateway.media.fetcher import FetchLimits
from gemma_gateway.media.loader import read_images
from gemma_gateway.settings import GatewaySettings

PARAM = "messages[0].content[1].image_url.url"
SETTINGS = GatewaySettings(media_domains="*", max_image_bytes=100_000)


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    async with hostile() as net:
        yield net


async def test_images_keep_their_order_and_each_is_fetched_once(net: Net) -> None:
    urls = ["http://a.example/cat.png", "HTTP://b.example/cat.png", "http://a.example/cat.png"]
    places = [(f"p[{index}]", url) for index, url in enumerate(urls)]
    assert await read_images(places, SETTINGS, net.fetcher()) == (png(),) * 3
    assert len(net.dialled) == 2


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/page", "invalid_image_format"),
        ("/empty", "empty_image_file"),
        ("/liar", "invalid_image_format"),
        ("/drip", "failed_to_download_image"),
        ("/to/http://127.0.0.1/", "invalid_image_url"),
    ],
)
async def test_an_error_names_the_url(net: Net, path: str, code: str) -> None:
    """The content decides: no response header turns an HTML page into an image."""
    places = [
        ("messages[0].content[0].image_url.url", "http://a.example/cat.png"),
        (PARAM, f"http://b.example{path}"),
    ]
    with pytest.raises(BadRequest) as caught:
        await read_images(places, SETTINGS, net.fetcher(BRIEF if path == "/drip" else ANY))
    assert (caught.value.param, caught.value.code) == (PARAM, code)


@pytest.mark.parametrize(
    "url",
    [
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "http://localhost/cat.png",
        "https://u:p@127.0.0.1/x.png",
    ],
)
async def test_through_the_api(engine: FakeEngine, url: str) -> None:
    """With the system's own resolver and transport."""
    app = create_app(SETTINGS, engine)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            response = await post(client, chat([text_part("x"), image_part(url)]))
    assert_error(response, 400, PARAM, "invalid_image_url")
    assert engine.asked == []


async def test_a_disconnect_cancels_the_fetch(net: Net) -> None:
    limits = FetchLimits(("*",), ANY.max_bytes, 60)
    task = asyncio.create_task(read_images([("p", "http://a.example/drip")], SETTINGS, net.fetcher(limits)))
    async with asyncio.timeout(10):
        while not net.server.heads:  # noqa: ASYNC110  (what is waited for is not ours)
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
