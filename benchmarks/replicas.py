"""One gateway in front of several real Triton servers: cached second turns, and a server killed under load.

python -m benchmarks.replicas [--model gemma3n-tiny] [--servers 3]
Counts are compared, not times, so it can run beside other work.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import openai
import psutil
from benchmarks.stack import LOOPBACK, serving
from openai import AsyncOpenAI

from gemma_launcher.processes.ports import find_free_port

READY_S: Final = 60.0
SYSTEM: Final = "You are a patient assistant who explains each step in plain words and never hurries. " * 6


@dataclass
class Counts:
    """What became of requests during a failure."""

    complete: int = 0
    failed_before: int = 0
    failed_after: int = 0


@contextmanager
def gateway(targets: Sequence[str]) -> Iterator[str]:
    """A gateway of its own in front of all servers; yields its base URL."""
    port = find_free_port(LOOPBACK)
    own = {"API_HOST": LOOPBACK, "API_PORT": str(port), "TRITON_GRPC_URL": ",".join(targets)}
    process = subprocess.Popen(
        [sys.executable, "-m", "gemma_gateway"], env={**os.environ, **own}, stdout=sys.stderr
    )
    try:
        deadline = time.monotonic() + READY_S
        while not _is_ready(f"http://{LOOPBACK}:{port}/health/ready"):
            if time.monotonic() > deadline:
                raise SystemExit("the gateway did not become ready")
            time.sleep(0.2)
        yield f"http://{LOOPBACK}:{port}"
    finally:
        process.terminate()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def routed(api: str) -> Counter[tuple[str, str]]:
    """Requests by server and reason, from the gateway's metrics."""
    found: Counter[tuple[str, str]] = Counter()
    for line in httpx.get(f"{api}/metrics", trust_env=False).text.splitlines():
        if line.startswith("gemma_api_routed_requests_total{"):
            labels, _, value = line.partition("} ")
            parts = dict(part.split("=", 1) for part in labels.partition("{")[2].split(","))
            found[parts["server"].strip('"'), parts["reason"].strip('"')] = int(float(value))
    return found


async def converse(client: AsyncOpenAI, number: int, turns: int) -> list[tuple[int, int]]:
    """Cached and complete prompt tokens of each turn of a conversation."""
    messages: list[Any] = [
        {"role": "system", "content": f"{SYSTEM} You are number {number}."},
        {"role": "user", "content": f"Tell me about the number {number}, please."},
    ]
    counts = []
    for _ in range(turns):
        response = await client.chat.completions.create(
            model="gemma3n", messages=messages, max_tokens=12, temperature=0
        )
        assert response.usage is not None
        details = response.usage.prompt_tokens_details
        cached = details.cached_tokens or 0 if details else 0
        counts.append((cached, response.usage.prompt_tokens))
        messages += [
            {"role": "assistant", "content": response.choices[0].message.content},
            {"role": "user", "content": "And what comes next?"},
        ]
    return counts


async def hits(api: str, conversations: int, at_once: int) -> tuple[float, float]:
    """The share of second turns whose first turn was cached, and the share of their tokens."""
    client, gate = (
        AsyncOpenAI(base_url=f"{api}/v1", api_key="none", max_retries=0),
        asyncio.Semaphore(at_once),
    )

    async def one(number: int) -> list[tuple[int, int]]:
        async with gate:
            return await converse(client, number, turns=2)

    results = await asyncio.gather(*map(one, range(conversations)))
    firsts = [first[1] for first, _ in results]
    seconds = [second for _, second in results]
    # Blocks of 16 tokens are cached, and the first turn's last tokens open the response.
    found = [cached >= first - 48 for first, (cached, _) in zip(firsts, seconds, strict=True)]
    return sum(found) / len(found), sum(c for c, _ in seconds) / sum(p for _, p in seconds)


async def load(client: AsyncOpenAI, stop: asyncio.Event, counts: Counts, number: int) -> None:
    """Streams without a pause until ``stop``."""
    turn = 0
    while not stop.is_set():
        turn, started = turn + 1, False
        try:
            stream = await client.chat.completions.create(
                model="gemma3n",
                messages=[{"role": "user", "content": f"Client {number}, request {turn}"}],
                max_tokens=60,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            async for _ in stream:
                started = True
            counts.complete += 1
        except (openai.APIError, httpx.HTTPError):
            counts.failed_after += started
            counts.failed_before += not started


async def kill(api: str, pid: int, target: str, clients: int) -> tuple[Counts, float]:
    """Kill one server's Triton under load; the counts, and the seconds until it gets requests again."""
    client, stop, counts = (
        AsyncOpenAI(base_url=f"{api}/v1", api_key="none", max_retries=0),
        asyncio.Event(),
        Counts(),
    )
    tasks = [asyncio.create_task(load(client, stop, counts, number)) for number in range(clients)]
    await asyncio.sleep(5)
    for child in psutil.Process(pid).children(recursive=True):
        if child.name() == "tritonserver":
            child.kill()
    began = time.monotonic()
    await asyncio.sleep(2)
    before = sum(count for (server, _), count in routed(api).items() if server == target)
    while sum(count for (server, _), count in routed(api).items() if server == target) <= before:
        await asyncio.sleep(0.5)
        if time.monotonic() - began > READY_S:
            break
    seconds = time.monotonic() - began
    await asyncio.sleep(2)
    stop.set()
    await asyncio.gather(*tasks)
    return counts, seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="gemma3n-tiny", help="hub id or folder; random weights by default")
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--conversations", type=int, default=40)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(given.model)) for _ in range(given.servers)]
        api = stack.enter_context(gateway([server.triton_grpc for server in servers]))
        found, tokens = asyncio.run(hits(api, given.conversations, at_once=6))
        print(
            f"second turns with a cached first turn: {found:.1%}; cached tokens of second turns: {tokens:.1%}"
        )
        print(f"routed: {dict(routed(api))}", flush=True)
        victim = servers[0]
        counts, seconds = asyncio.run(kill(api, victim.pid, victim.triton_grpc, given.clients))
        print(
            f"a server killed under load: {counts.complete} complete, {counts.failed_before} failed before "
            f"their first chunk, {counts.failed_after} after it; used again after {seconds:.1f} s"
        )


if __name__ == "__main__":
    main()
