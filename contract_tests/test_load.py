"""Many concurrent requests, and no leftovers."""

import asyncio
import random
from pathlib import Path

import httpx
import psutil
import pytest

from server import CHAT, HI, MODEL, Server
from stack import Stack, eventually
from test_fuzz import SEED, fuzz

CLIENTS = 100
REQUESTS = 5000


async def _leave_early(http: httpx.AsyncClient, seconds: float, stream: bool) -> None:
    body = {"model": MODEL, "messages": HI, "max_tokens": 3000, "ignore_eos": True, "stream": stream}
    try:
        async with asyncio.timeout(seconds), http.stream("POST", CHAT, json=body) as answer:
            async for _ in answer.aiter_bytes():
                pass
    except TimeoutError:
        pass


async def test_a_hundred_disconnects_free_their_slots_within_a_second(stack: Stack) -> None:
    luck = random.Random(SEED)
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=stack.url, timeout=60, limits=limits) as http:
        leaving = (_leave_early(http, luck.uniform(0, 3), luck.random() < 0.5) for _ in range(CLIENTS))
        await asyncio.gather(*leaving)
        assert await asyncio.to_thread(stack.idle, 1), stack.gauge("gemma_requests_running")


def _memory(stack: Stack) -> dict[str, int]:
    """Resident bytes of the gateway and of the model's process."""
    gateway = next(p for p in stack.tree() if "gemma_gateway" in " ".join(p.cmdline()))
    stub = stack.find("triton_python_backend_stub")
    return {"gateway": gateway.memory_info().rss, "model": psutil.Process(stub.pid).memory_info().rss}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_five_thousand_generated_requests_leave_nothing_behind(
    stack: Stack, server: Server, tmp_path: Path, reports: Path
) -> None:
    """No 5xx, no hang, no leaked slot, memory back within 5 %. A first round warms every cache up."""
    before: dict[str, int] = {}
    requests = tmp_path / "requests"
    for turn in range(30):
        flags = ("--max-examples", "100", "--report", "junit,html", "--report-dir", str(reports / f"{turn}"))
        run = fuzz(server, tmp_path, *flags, seed=SEED + turn)
        assert run.returncode == 0, run.stdout[-20_000:]
        if not before:
            before = _memory(stack)
            requests.unlink()
        elif len(requests.read_text(encoding="ascii").splitlines()) >= REQUESTS:
            break
    statuses = requests.read_text(encoding="ascii").split()
    assert len(statuses) >= REQUESTS
    assert not [status for status in statuses if status.startswith("5")]
    assert stack.idle(5)
    assert eventually(lambda: _within(_memory(stack), before), 30), (before, _memory(stack))


def _within(now: dict[str, int], before: dict[str, int]) -> bool:
    return all(now[name] <= before[name] * 1.05 for name in before)
