"""Whether anything grows: mixed requests for some minutes, and the memory of every process of our stack.

python -m benchmarks.soak FOLDER [--seconds 600] [--clients 8]
Text of many lengths, images, audio, JSON schemas, log probabilities, refused requests, clients that leave.
Exit status 1 when a process ends with more than 5 % more memory than it had after the first minute.
"""

import argparse
import asyncio
import base64
import io
import itertools
import random
import sys
import time
import wave
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import psutil
from benchmarks.stack import serving
from PIL import Image

WARM_S = 60.0
LOOK_EVERY_S = 5.0
ALLOWED_GROWTH = 1.05
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "count": {"type": "integer"}},
    "required": ["name", "count"],
    "additionalProperties": False,
}
COLOURS = ("red", "green", "blue", "yellow", "white")


def text(rng: random.Random) -> dict[str, Any]:
    """A prompt of any length up to about 1,500 tokens."""
    return {"messages": _user("Count: " + "one two three " * rng.randrange(1, 500))}


def image(rng: random.Random) -> dict[str, Any]:
    """An image that nobody has sent before."""
    picture = Image.new("RGB", (rng.randrange(16, 900), rng.randrange(16, 900)), rng.choice(COLOURS))
    picture.putpixel((rng.randrange(16), rng.randrange(16)), (rng.randrange(256), rng.randrange(256), 0))
    file = io.BytesIO()
    picture.save(file, rng.choice(("PNG", "JPEG", "WEBP")))
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    parts = [{"type": "text", "text": "What do you see?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"messages": _user(parts)}


def audio(rng: random.Random) -> dict[str, Any]:
    """A clip of 0.1 to 8 seconds of noise."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(rng.randbytes(2 * rng.randrange(1_600, 128_000)))
    data = base64.b64encode(file.getvalue()).decode()
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    return {"messages": _user([part, {"type": "text", "text": "What do you hear?"}])}


def schema(rng: random.Random) -> dict[str, Any]:
    """A response for a schema with a varying bound."""
    properties = {**SCHEMA["properties"], "count": {"type": "integer", "maximum": rng.randrange(1000)}}  # type: ignore[dict-item]
    form = {"name": "x", "schema": {**SCHEMA, "properties": properties}, "strict": True}
    return {"messages": _user("Answer."), "response_format": {"type": "json_schema", "json_schema": form}}


def scored(rng: random.Random) -> dict[str, Any]:
    """Log probabilities of two choices."""
    return {**text(rng), "logprobs": True, "top_logprobs": 5, "n": 2}


def wrong(rng: random.Random) -> dict[str, Any]:
    """A request that is refused."""
    return {"messages": _user("Hi"), "temperature": rng.choice((-1, 9, "hot"))}


KINDS: tuple[Callable[[random.Random], dict[str, Any]], ...] = (text, image, audio, schema, scored, wrong)


def _user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


async def client(api: str, seed: int, until: float, counts: "Counter[str]") -> None:
    """Asks one thing after the other; every fifth stream is left in the middle."""
    rng = random.Random(seed)
    async with httpx.AsyncClient(base_url=api, timeout=300, trust_env=False) as http:
        for number in itertools.count():
            if time.monotonic() > until:
                return
            kind = rng.choice(KINDS)
            body = {"model": "gemma3n", "max_tokens": rng.randrange(1, 64), "seed": number, **kind(rng)}
            leaves = number % 5 == 0
            body["stream"] = leaves or rng.random() < 0.5
            counts[await _ask(http, body, leaves) + " " + kind.__name__] += 1


async def _ask(http: httpx.AsyncClient, body: dict[str, Any], leaves: bool) -> str:
    async with http.stream("POST", "/chat/completions", json=body) as response:
        async for _ in response.aiter_lines():
            if leaves and response.is_success:
                return "left"
    return str(response.status_code)


def memory(launcher: int) -> dict[str, int]:
    """Resident bytes of the stack's processes, by name; those of one name together."""
    found: Counter[str] = Counter()
    parent = psutil.Process(launcher)
    for process in [parent, *parent.children(recursive=True)]:
        try:
            found[_name(process)] += process.memory_info().rss
        except psutil.Error:
            continue
    return dict(found)


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    module = words[words.index("-m") + 1] if "-m" in words else words[-1].rpartition("/")[2]
    return module if module.startswith("gemma") else process.name()


async def soak(api: str, launcher: int, seconds: float, clients: int) -> bool:
    """Whether no process has grown; prints a line each minute, and a table."""
    began, counts = time.monotonic(), Counter[str]()
    tasks = [asyncio.create_task(client(api, seed, began + seconds, counts)) for seed in range(clients)]
    warm: dict[str, int] = {}
    while not all(task.done() for task in tasks):
        await asyncio.sleep(LOOK_EVERY_S)
        passed = time.monotonic() - began
        now = memory(launcher)
        if not warm and passed >= WARM_S:
            warm = now
        print(f"{passed:5.0f} s  {counts.total():6d} requests  " + _megabytes(now), flush=True)
    await asyncio.gather(*tasks)
    print(dict(sorted(counts.items())))
    return _report(warm, memory(launcher))


def _megabytes(now: dict[str, int]) -> str:
    return "  ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sorted(now.items()))


def _report(warm: dict[str, int], last: dict[str, int]) -> bool:
    steady = True
    for name in sorted(warm):
        ratio = last.get(name, 0) / warm[name]
        steady &= ratio <= ALLOWED_GROWTH
        print(f"{name:30} {warm[name] / 1e6:8.1f} MB -> {last.get(name, 0) / 1e6:8.1f} MB  x {ratio:.3f}")
    return steady


def main() -> int:
    """Serve and soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="hub id or folder")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with serving(options.model, playground=True) as stack:
        steady = asyncio.run(soak(stack.api, stack.pid, options.seconds, options.clients))
    return 0 if steady else 1


if __name__ == "__main__":
    sys.exit(main())
