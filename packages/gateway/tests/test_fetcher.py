"""Fetching images by URL from malicious servers and resolvers."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Sequence

import pytest
from packages.gateway.tests.hostile_server import ANY, BRIEF, PUBLIC, Net, Resolver, Rewired, hostile
from packages.gateway.tests.message_helpers import png

from gemma_gateway.media.fetcher import Fetcher, FetchLimits, FetchRefused, lookup
from gemma_gateway.media.public_addresses import Address

PARAM = "messages[0].content[1].image_url.url"


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    async with hostile() as net:
        yield net


async def test_an_image_is_fetched(net: Net) -> None:
    assert await net.get("http://img.example.org/cat.png?a=b#c") == png()
    assert net.dialled == [PUBLIC]
    head = net.server.heads[0].decode().lower()
    assert head.startswith("get /cat.png?a=b http/1.1")
    assert "host: img.example.org\r\n" in head
    assert "accept-encoding: identity" in head


async def test_the_tls_name_is_the_urls_host(net: Net) -> None:
    await net.get("https://IMG.example.org/cat.png")
    assert net.transport.asked[0].extensions["sni_hostname"] == "img.example.org"


async def test_the_tls_handshake_has_the_name_and_the_connection_the_checked_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With httpx's transport and a server without a certificate, which records the SNI name."""
    told: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _, name, __: told.append(name)
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    monkeypatch.setattr("gemma_gateway.media.fetcher.PORTS", (port, port))
    monkeypatch.setattr("gemma_gateway.media.fetcher.is_public", lambda _: True)

    async def resolve(_: str) -> Sequence[Address]:
        return [ipaddress.ip_address("127.0.0.1")]

    async with listener:
        with pytest.raises(FetchRefused, match="could not be fetched"):
            async with Fetcher(ANY, 10, resolve) as fetcher:
                await fetcher.get(f"https://img.example.org:{port}/cat.png")
    assert told == ["img.example.org"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/cat.png",
        "http://[::1]/cat.png",
        "http://[::ffff:127.0.0.1]/cat.png",
        "http://[::ffff:7f00:1]/cat.png",
        "http://[64:ff9b::7f00:1]/cat.png",
        "http://[2002:7f00:1::]/cat.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://2130706433/cat.png",
        "http://0x7f000001/cat.png",
        "http://0x7f.1/cat.png",
        "http://017700000001/cat.png",
        "http://0177.0.0.1/cat.png",
        "http://127.1/cat.png",
        "http://127.0.0.1./cat.png",
        "http://１２７.0.0.1/cat.png",
        "http://127。0。0。1/cat.png",
        "http://①②⑦.0.0.1/cat.png",
        "http://[fe80::1%25eth0]/cat.png",
        "http://user@img.example.org/cat.png",
        "http://user:secret@img.example.org/cat.png",
        "http://img.example.org:22/cat.png",
        "http://img.example.org:8080/cat.png",
        "https://img.example.org:0/cat.png",
        "http:///cat.png",
        "http://",
        "http://[::1/cat.png",
        "http://a b/cat.png",
        "http://img.example.org/\x00",
        "http://" + "a" * 10_000,
        "file:///etc/passwd",
        "ftp://img.example.org/cat.png",
        "gopher://img.example.org/",
        "//img.example.org/cat.png",
        "",
    ],
)
async def test_urls_that_are_refused_without_a_lookup(net: Net, url: str) -> None:
    assert (await net.refused(url)).code == "invalid_image_url"
    assert net.resolver.asked == []
    assert net.dialled == []


@pytest.mark.parametrize(
    "addresses",
    ["127.0.0.1", "10.0.0.1", "::ffff:127.0.0.1", "fd00:ec2::254", f"{PUBLIC} 10.0.0.1", f"{PUBLIC} ::1", ""],
)
async def test_a_host_with_a_private_address_is_refused(net: Net, addresses: str) -> None:
    net.resolver = Resolver(evil_example=[addresses])
    refused = await net.refused("http://evil.example/cat.png")
    assert refused.code == "invalid_image_url"
    assert net.dialled == []
    assert addresses == "" or addresses.rsplit(maxsplit=1)[-1] not in refused.message


async def test_dns_rebinding(net: Net) -> None:
    """The name is looked up once; the connection is made to the address that was checked."""
    net.resolver = Resolver(evil_example=[PUBLIC, "127.0.0.1"])
    assert await net.get("http://evil.example/cat.png") == png()
    assert net.resolver.asked == ["evil.example"]
    assert net.dialled == [PUBLIC]
    assert (await net.refused("http://evil.example/cat.png")).code == "invalid_image_url"
    assert net.dialled == [PUBLIC]


async def test_rebinding_between_redirects(net: Net) -> None:
    net.resolver = Resolver(evil_example=[PUBLIC, "127.0.0.1"])
    assert (await net.refused("http://evil.example/to//cat.png")).code == "invalid_image_url"
    assert net.dialled == [PUBLIC]


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/cat.png",
        "http://[::ffff:127.0.0.1]/cat.png",
        "http://2130706433/",
        "//127.0.0.1/cat.png",
        "http://inner.example/cat.png",
        "http://u:p@img.example.org/",
        "http://img.example.org:22/",
        "file:///etc/passwd",
        "javascript:1",
        "http://[",
    ],
)
async def test_an_open_redirect(net: Net, target: str) -> None:
    net.resolver = Resolver(inner_example=["192.168.0.1"])
    assert (await net.refused(f"http://open.example/to/{target}")).code == "invalid_image_url"
    assert net.dialled == [PUBLIC]


async def test_three_redirects_and_no_more(net: Net) -> None:
    three = "/to/" * 3 + "/cat.png"
    assert await net.get(f"http://a.example{three}") == png()
    assert len(net.dialled) == 4
    assert "3 times" in (await net.refused(f"http://a.example/to/{three}")).message
    assert len(net.dialled) == 8


@pytest.mark.parametrize("path", ["/endless", "/chunked", "/liar"])
async def test_an_endless_response_is_refused(net: Net, path: str) -> None:
    """With and without a Content-Length; the server sends no more than the socket buffers hold."""
    if path == "/liar":
        assert await net.get(f"http://img.example.org{path}") == bytes(1000)
    else:
        assert (await net.refused(f"http://img.example.org{path}")).code == "image_file_too_large"
    assert net.server.sent < 50_000_000


async def test_a_large_content_length_is_refused(net: Net) -> None:
    assert (await net.refused("http://img.example.org/huge")).code == "image_file_too_large"


@pytest.mark.parametrize("path", ["/drip", "/drip-head"])
async def test_a_slow_response_times_out(net: Net, path: str) -> None:
    refused = await net.refused(f"http://img.example.org{path}", BRIEF)
    assert refused.code == "failed_to_download_image"
    assert "0.5 seconds" in refused.message


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/bomb", "failed_to_download_image"),
        ("/gone", "image_file_not_found"),
        ("/secret", "failed_to_download_image"),
        ("/short", "failed_to_download_image"),
        ("/garbage", "failed_to_download_image"),
    ],
)
async def test_bad_responses(net: Net, path: str, code: str) -> None:
    assert (await net.refused(f"http://img.example.org{path}")).code == code


async def test_a_resolver_that_never_answers(net: Net) -> None:
    async def never(_: str) -> Sequence[Address]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(FetchRefused, match=r"0\.5 seconds"):
        async with Fetcher(BRIEF, 10, never, net.transport) as fetcher:
            await fetcher.get("http://img.example.org/cat.png")


async def test_the_next_address_is_tried_when_one_fails(net: Net) -> None:
    other = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
    net.resolver = Resolver(two_example=[f"{other} {PUBLIC}"])
    net.transport = Rewired(net.port, dead=[PUBLIC])
    assert await net.get("http://two.example/cat.png") == png()
    assert net.dialled == [PUBLIC, other]
    net.transport = Rewired(net.port, dead=[PUBLIC, other])
    assert (await net.refused("http://two.example/cat.png")).code == "failed_to_download_image"


@pytest.mark.parametrize(
    ("domains", "url", "allowed"),
    [
        (("example.org",), "http://example.org/cat.png", True),
        (("example.org",), "http://EXAMPLE.org./cat.png", True),
        (("example.org",), "http://a.b.example.org/cat.png", True),
        (("example.org",), "http://badexample.org/cat.png", False),
        (("example.org",), "http://example.org.evil.example/cat.png", False),
        (("example.org",), "http://example.com/cat.png", False),
        (("example.org",), f"http://{PUBLIC}/cat.png", False),
        ((PUBLIC,), f"http://{PUBLIC}/cat.png", True),
        (("*",), f"http://{PUBLIC}/cat.png", True),
        (("*",), "http://bücher.example/cat.png", True),
        (("xn--bcher-kva.example",), "http://bücher.example/cat.png", True),
        ((), "http://example.org/cat.png", False),
    ],
)
async def test_domains(net: Net, domains: tuple[str, ...], url: str, allowed: bool) -> None:
    limits = FetchLimits(domains, ANY.max_bytes, ANY.seconds)
    if allowed:
        assert await net.get(url, limits) == png()
    else:
        assert (await net.refused(url, limits)).code == "invalid_image_url"
        assert net.dialled == []


async def test_a_redirect_away_from_the_allowed_domains(net: Net) -> None:
    limits = FetchLimits(("example.org",), ANY.max_bytes, ANY.seconds)
    assert (await net.refused("http://example.org/to/http://other.example/", limits)).code
    assert net.dialled == [PUBLIC]


async def test_the_total_size_of_all_files_is_limited(net: Net) -> None:
    async with net.fetcher(total=len(png()) * 2) as fetcher:
        for _ in range(2):
            await fetcher.get("http://img.example.org/cat.png")
        with pytest.raises(FetchRefused, match="larger"):
            await fetcher.get("http://img.example.org/cat.png")


async def test_the_systems_resolver() -> None:
    assert ipaddress.ip_address("127.0.0.1") in await lookup("localhost")
    assert await lookup("a..b") == []
    assert await lookup("x" * 300) == []
