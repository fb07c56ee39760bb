"""The native engine against the reference engine, on one checkpoint: no Triton, no HTTP.

python benchmarks/engine.py FOLDER [--clients 1 4 16] [--prompt 64] [--tokens 64] [--rounds 3]
"""

import argparse
import statistics
import threading
import time
from pathlib import Path

from gemma_model import malloc
from gemma_model.engine import create_engine
from gemma_model.engine_types import (
    Engine,
    EngineOutput,
    EngineRequest,
    EngineSamplingParams,
    TokenizedPrompt,
)
from gemma_model.settings import Settings


class GenerationListener:
    """Receives the tokens of one request, with the times of their arrival."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.times: list[float] = []
        self.ended = threading.Event()

    def __call__(self, step: EngineOutput) -> None:
        """Listen."""
        assert step.error is None, step.error
        self.tokens += step.token_ids
        self.times += [time.perf_counter()] * len(step.token_ids)
        if step.last:
            self.ended.set()


def measure(engine: Engine, clients: int, prompt: int, tokens: int, salt: int) -> tuple[float, float]:
    """Output tokens/s of all clients together, and the median time to the first token in seconds."""
    listeners = [GenerationListener() for _ in range(clients)]
    began = time.perf_counter()
    for i, listener in enumerate(listeners):
        ids = (2, *(100 + (salt * 7919 + i * 104729 + j * 31) % 300 for j in range(prompt - 1)))
        engine.submit(
            EngineRequest(TokenizedPrompt(ids), EngineSamplingParams(temperature=0), tokens), listener
        )
    for listener in listeners:
        listener.ended.wait()
    elapsed = time.perf_counter() - began
    first = statistics.median(listener.times[0] - began for listener in listeners)
    return clients * tokens / elapsed, first


def _medians(rounds: list[tuple[float, float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def main() -> None:
    """Command line."""
    malloc.tune()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    engines = {name: create_engine(given.folder, Settings(engine=name)) for name in ("native", "reference")}
    print("| clients | native tok/s (TTFT ms) | reference tok/s (TTFT ms) | ratio |")
    print("| --- | --- | --- | --- |")
    for clients in given.clients:
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
        for salt in range(given.rounds + 1):  # in turn, the first round to warm up
            for name, engine in engines.items():
                rounds[name].append(measure(engine, clients, given.prompt, given.tokens, salt))
        middle = {name: _medians(measured[1:]) for name, measured in rounds.items()}
        cells = [f"{speed:.0f} ({first * 1e3:.0f})" for speed, first in middle.values()]
        ratio = middle["native"][0] / middle["reference"][0]
        print(f"| {clients} | {' | '.join(cells)} | {ratio:.2f} |", flush=True)
    for engine in engines.values():
        engine.close()


if __name__ == "__main__":
    main()
