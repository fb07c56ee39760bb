"""``docker compose --profile cpu up`` on an engine: the README's calls, the page, the containers' rights."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from playwright.async_api import expect

import chromium
from engine import IMAGES, Engine
from engine_stack import API, PAGE_URL, PLAYGROUND, SERVICES, TRITON, Containers, answers, container
from materials import red_circle
from screen import new_screen
from stack import ROOT

LARGEST_MB = {"gemma-triton-api": 400, "gemma-triton-playground": 600, "gemma-triton": 7000}
"""On the stand-ins, which have 130 and 280 MB."""

UNWANTED = r"""
find / -xdev \( -path '*/site-packages/pip' -o -path '*/site-packages/poetry' -o -path '*/.cache' \) -print
find /opt /app -xdev \( -name tests -type d -o -name .git \) -print
find /var/cache/apt /var/lib/apt/lists -xdev -type f \( -name '*.deb' -o -name '*Packages*' \) -print
"""
COMPILERS = "for name in gcc g++ cc make pip poetry; do command -v $name || true; done"


def _curl_calls() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [
        block
        for block in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        if block.startswith("curl")
    ]


def _in_image(engine: Engine, image: str, script: str) -> str:
    sandbox = ("run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh")
    return engine.docker(*sandbox, image, "-euc", script)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_what_it_needs_and_no_more(docker_engine: Engine, image: str) -> None:
    size = docker_engine.inspect(image)["Size"] / 1e6
    print(f"{image}: {size:.0f} MB")
    if docker_engine.has_stand_ins:
        assert size < LARGEST_MB[image]
    assert _in_image(docker_engine, image, UNWANTED) == ""
    if image != "gemma-triton":  # which compiles its kernels
        assert _in_image(docker_engine, image, COMPILERS) == ""


@pytest.mark.parametrize("call", _curl_calls())
def test_a_curl_call_of_the_readme(stack: Containers, call: str) -> None:
    run = subprocess.run(
        ["bash", "-euc", call.replace("curl ", "curl --fail-with-body -sS --noproxy '*' ")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    if '"stream": true,' in call:
        assert run.stdout.strip().endswith("data: [DONE]")
    elif "chat/completions" in call:
        assert json.loads(run.stdout)["choices"][0]["message"]["content"]


@pytest.mark.asyncio(loop_scope="function")
async def test_the_playground_says_what_is_on_an_image(stack: Containers, tmp_path: Path) -> None:
    path = chromium.installed()
    if path is None:
        pytest.skip(chromium.MISSING)
    async with chromium.launched(path) as browser:
        screen = await new_screen(browser, PAGE_URL)
        await screen.open()
        await screen.choose("Upload a file", red_circle(tmp_path))
        await screen.send.click()
        await screen.wait_complete()
        answer = (await screen.responses.last.inner_text()).lower()
        assert "red" in answer
        assert "circle" in answer
        await expect(screen.metric("finish reason")).to_have_text("stop")
        assert not screen.foreign


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_has_no_privileges_and_writes_only_to_volumes_and_memory(
    stack: Containers, service: str
) -> None:
    assert answers()
    status = stack.engine.docker("exec", container(service), "cat", "/proc/1/status")
    facts = dict(re.findall(r"^(\w+):\s+(\S+)", status, re.MULTILINE))
    assert (facts["Uid"], facts["Gid"], facts["NoNewPrivs"]) == ("1000", "1000", "1")
    assert {int(facts[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
    assert not stack.engine.written(container(service))


def test_ports_are_published_as_the_docs_say(stack: Containers) -> None:
    published = {service: stack.inspect(service)["NetworkSettings"]["Ports"] for service in SERVICES}
    hosts = {
        service: {each["HostIp"] for bindings in ports.values() for each in bindings}
        for service, ports in published.items()
    }
    assert hosts[TRITON] == hosts[PLAYGROUND] == {"127.0.0.1"}
    assert "0.0.0.0" in hosts[API]
