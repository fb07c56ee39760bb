"""The cost and the delay of streamed tokens outside the engine: sender, tritonserver, gateway, client.

python -m benchmarks.streaming [--streams 16 32] [--rates 20] [--seconds 6] [--limit 64]
An engine that computes nothing (`paced_engine.py`) produces tokens at a set rate behind the real Triton and
the real gateway. CPU time is that of each process, so other work on the machine changes it little; delays
need an idle machine. The columns of the parts are microseconds of a core per token.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from benchmarks.machine import about
from benchmarks.paced_engine import ROOT, START_DIGITS, repository
from benchmarks.stack import ServingStack, serving
from benchmarks.streaming_client import StreamReader

MOST_STREAMS = 256
SETTLE_S = 1.0
"""Time between the start of the streams and that of the measurement."""
LIMIT_MS = 50.0
"""The 99th percentile of a token's delay below which a rate counts as delivered."""
PARTS = {"sender": "triton_python_backend_stub", "tritonserver": "tritonserver", "gateway": "gemma_gateway"}
"""Part → what the command line of its process contains."""


@dataclass(frozen=True)
class Measurement:
    """One load.

    Args:
        streams: concurrent ones.
        rate: tokens/s of each.
        tokens: received in the measured time.
        events: that brought them.
        joined: tokens that shared an event with another, as a share of all.
        cpu_us: part → microseconds of a core per token.
        delay_ms: 50th and 99th percentile of the time between a token's production and its arrival.
        memory_mb: part → resident memory at the end.
    """

    streams: int
    rate: int
    tokens: int
    events: int
    joined: float
    cpu_us: Mapping[str, float]
    delay_ms: tuple[float, float]
    memory_mb: Mapping[str, float]

    @property
    def server_us(self) -> float:
        """Microseconds of a core per token of all parts but the client."""
        return sum(self.cpu_us[part] for part in PARTS)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(ROOT / "models" / "gemma3n-nano"), help="for its tokenizer")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 32])
    parser.add_argument("--rates", type=int, nargs="+", default=[20], help="tokens/s of each stream")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="measured time of each load")
    parser.add_argument(
        "--limit", type=int, nargs="*", default=[], help="streams whose highest rate is searched"
    )
    parser.add_argument("--obfuscation", choices=("default", "on", "off"), default="default")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slots = {
            "GEMMA_MODEL_REPOSITORY": str(repository(Path(folder))),
            "GEMMA_MAX_NUM_SEQS": str(MOST_STREAMS),
        }
        with serving(given.model, environment=slots) as stack:
            measured = asyncio.run(measure(stack, given))
    if given.json:
        text = json.dumps({"machine": about(), "loads": [asdict(each) for each in measured]}, indent=2)
        given.json.write_text(text + "\n", encoding="utf-8")


async def measure(stack: ServingStack, given: argparse.Namespace) -> list[Measurement]:
    """Every load, and the highest rates."""
    body = body_of(given.obfuscation)
    await load(stack, body, 1, 100, 1.0)  # to warm up
    measured = []
    print("\n".join(HEADER), flush=True)
    for streams in given.streams:
        for rate in given.rates:
            rounds = [await load(stack, body, streams, rate, given.seconds) for _ in range(given.rounds)]
            print(row(rounds), flush=True)
            measured += rounds
    for streams in given.limit:
        best = await highest(stack, body, streams, given.seconds)
        print(f"{streams} streams: at most {best} tokens/s each with a 99th percentile below {LIMIT_MS:g} ms")
    return measured


def body_of(obfuscation: str) -> dict[str, Any]:
    """The fields that all requests share."""
    options = {} if obfuscation == "default" else {"include_obfuscation": obfuscation == "on"}
    content = [{"role": "user", "content": "Count."}]
    return {"messages": content, "stream": True, "stream_options": {"include_usage": True, **options}}


async def load(
    stack: ServingStack, body: Mapping[str, Any], streams: int, rate: int, seconds: float
) -> Measurement:
    """Measures so many streams for a time, after they have settled."""
    tokens = max(round((seconds + 2 * SETTLE_S) * rate) + 1, START_DIGITS)
    asked = {**body, "model": "gemma3n-nano", "max_tokens": tokens, "seed": rate}
    readers = await asyncio.gather(*(StreamReader.open(stack.api, asked) for _ in range(streams)))
    await asyncio.sleep(SETTLE_S)
    processes = find(stack.pid)
    before, began = _cpu(processes), time.monotonic()
    await asyncio.sleep(seconds)
    after, ended = _cpu(processes), time.monotonic()
    memory = {part: process.memory_info().rss / 2**20 for part, process in processes.items()}
    await asyncio.gather(*(reader.finished for reader in readers))
    events = [event for reader in readers for event in reader.events if began <= event.time < ended]
    count = sum(event.tokens for event in events)
    delays = sorted(delay for reader in readers for delay in reader.delays(rate, began, ended))
    cuts = statistics.quantiles(delays, n=100)
    return Measurement(
        streams=streams,
        rate=rate,
        tokens=count,
        events=len(events),
        joined=sum(event.tokens for event in events if event.tokens > 1) / count,
        cpu_us={part: (after[part] - before[part]) / count * 1e6 for part in before},
        delay_ms=(cuts[49] * 1e3, cuts[98] * 1e3),
        memory_mb=memory,
    )


async def highest(stack: ServingStack, body: Mapping[str, Any], streams: int, seconds: float) -> int:
    """The highest rate, to a sixteenth, that is delivered within the limit."""
    low, high = 0, 0
    rate = 10
    while not high or high - low > max(1, low // 16):
        one = await load(stack, body, streams, rate, seconds)
        print(row([one]), flush=True)
        on_time = one.delay_ms[1] < LIMIT_MS
        low, high = (rate, high) if on_time else (low, rate)
        rate = (low + high) // 2 if high else 2 * rate
    return low


def find(launcher: int) -> dict[str, psutil.Process]:
    """The process of each part.

    Raises:
        SystemExit: one of them is missing.
    """
    children = psutil.Process(launcher).children(recursive=True)
    found = {}
    for part, name in PARTS.items():
        fitting = [child for child in children if _runs(child, name)]
        if len(fitting) != 1:
            raise SystemExit(f"{len(fitting)} processes run {name}, not one")
        found[part] = fitting[0]
    return found


def _runs(process: psutil.Process, name: str) -> bool:
    """By the program, or by the module that Python runs."""
    words = process.cmdline()
    return bool(words) and (Path(words[0]).name == name or name in words[1:3])


def _cpu(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    """Seconds that each has computed; the client is this process."""
    times = {part: process.cpu_times() for part, process in processes.items()}
    return {part: each.user + each.system for part, each in times.items()} | {"client": time.process_time()}


HEADER = (
    "| streams | tokens/s each | joined | sender | tritonserver | gateway | client "
    "| sender to gateway | the same per event | delay p50, ms | p99 |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def row(rounds: Sequence[Measurement]) -> str:
    """Markdown: the medians of the rounds."""
    first = rounds[0]
    parts = [statistics.median(one.cpu_us[part] for one in rounds) for part in (*PARTS, "client")]
    total = statistics.median(one.server_us for one in rounds)
    per_event = statistics.median(one.server_us * one.tokens / one.events for one in rounds)
    p50, p99 = (statistics.median(one.delay_ms[place] for one in rounds) for place in (0, 1))
    joined = statistics.median(one.joined for one in rounds)
    cells = [f"{first.streams}", f"{first.rate}", f"{joined:.0%}", *(f"{part:.0f}" for part in parts)]
    cells += [f"{total:.0f}", f"{per_event:.0f}", f"{p50:.1f}", f"{p99:.1f}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
