"""What each layer costs: the engine alone, the engine behind Triton, and both behind the gateway.

python -m benchmarks.layers FOLDER [--clients 1 16] [--prompt-tokens 64] [--max-tokens 128] [--rounds 3]
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.engine import measure as run_engine
from benchmarks.machine import about
from benchmarks.rounds import Ratio, Rounds, alternate
from benchmarks.stack import ServingStack, serving

from gemma_gateway.triton_client import TritonClient
from gemma_launcher.tools import api_client
from gemma_launcher.tools.bench import prompts
from gemma_launcher.tools.bench.load_generator import Workload, run_load_level
from gemma_launcher.tools.bench.token_counter import token_counter
from gemma_model import malloc
from gemma_model.engine import create_engine
from gemma_model.engine_types import Engine
from gemma_model.settings import Settings
from gemma_wire import Message, Options, Request

ENGINE, TRITON, GATEWAY = LAYERS = ("engine", "+ Triton", "+ gateway")
Speed = Callable[[int], Awaitable[float]]


def main() -> None:
    """Command line."""
    malloc.tune()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--most-busy", type=float, default=0.1, help="cores in use by others; more spoils a round"
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    engine = create_engine(given.folder, Settings(engine="native"))
    try:
        with serving(str(given.folder)) as stack:
            measured = asyncio.run(measure(engine, stack, given))
    finally:
        engine.close()
    print("\n".join(table(measured)))
    if given.json:
        levels = {n: asdict(rounds) for n, rounds in measured.items()}
        text = json.dumps({"machine": about(), "clients": levels}, indent=2)
        given.json.write_text(text + "\n", encoding="utf-8")


async def measure(engine: Engine, stack: ServingStack, given: argparse.Namespace) -> dict[int, Rounds[float]]:
    """Clients → output tokens/s of each layer, round by round. Each round has prompts of its own."""
    with api_client.create_client(stack.api) as client:
        model = api_client.select_model(client, None)
    with token_counter(stack.api, model) as count:
        texts = {
            (n, number): prompts.make_prompts(count, given.prompt_tokens, n, n * 1000 + number).texts
            for n in given.clients
            for number in range(-1, 3 * given.rounds)
        }
    async with _open(stack) as (triton, client_async):
        load = Workload(model, given.max_tokens, body={"ignore_eos": True})

        async def alone(n: int, number: int) -> float:
            sizes = n, given.prompt_tokens, given.max_tokens
            return (await asyncio.to_thread(run_engine, engine, *sizes, n * 1000 + number))[0]

        async def behind_triton(n: int, number: int) -> float:
            return await _through_triton(triton, texts[n, number], given.max_tokens)

        async def behind_gateway(n: int, number: int) -> float:
            level = await run_load_level(client_async, load, n, texts[n, number], lambda: None)
            if level.failed:
                raise SystemExit("; ".join(level.errors))
            return level.output_tokens_per_s

        sides = dict(zip(LAYERS, (alone, behind_triton, behind_gateway), strict=True))
        measured = {}
        for n in given.clients:
            each: Mapping[str, Speed] = {name: partial(side, n) for name, side in sides.items()}
            for speed in each.values():
                await speed(-1)  # to warm up
            measured[n] = await alternate(each, given.rounds, given.most_busy)
        return measured


@contextlib.asynccontextmanager
async def _open(stack: ServingStack) -> AsyncIterator[tuple[TritonClient, Any]]:
    triton = TritonClient([stack.triton_grpc])
    try:
        async with api_client.create_async_client(stack.api) as client:
            yield triton, client
    finally:
        await triton.close()


async def _through_triton(triton: TritonClient, texts: tuple[str, ...], max_tokens: int) -> float:
    """Output tokens/s of all requests together."""
    began = time.perf_counter()
    counts = await asyncio.gather(*(_one(triton, text, max_tokens) for text in texts))
    return sum(counts) / (time.perf_counter() - began)


async def _one(triton: TritonClient, text: str, max_tokens: int) -> int:
    request = Request(
        messages=(Message(role="user", content=text),),
        max_tokens=max_tokens,
        temperature=0.0,
        stream=True,
        options=Options(ignore_eos=True),
    )
    tokens = 0
    async for chunk in triton.generate(request, "benchmark"):
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    return tokens


def table(measured: Mapping[int, Rounds[float]]) -> list[str]:
    """Markdown: throughput, time per token of each client, and each layer as a share of the one below."""
    lines = [
        "| clients | layer | out tok/s | ms per token | added ms | throughput ÷ the layer below |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for clients, rounds in measured.items():
        below: str | None = None
        for layer in LAYERS:
            speed = statistics.median(rounds.kept[layer])
            cells = [f"{speed:.1f}", f"{_ms(rounds, layer, clients):.2f}", "", ""]
            if below:
                cells[2] = f"{_ms(rounds, layer, clients) - _ms(rounds, below, clients):.2f}"
                cells[3] = str(Ratio.of(rounds.kept[layer], rounds.kept[below]))
            lines.append(f"| {clients} | {layer} | {' | '.join(cells)} |")
            below = layer
    return lines


def _ms(rounds: Rounds[float], layer: str, clients: int) -> float:
    return clients / statistics.median(rounds.kept[layer]) * 1e3


if __name__ == "__main__":
    main()
