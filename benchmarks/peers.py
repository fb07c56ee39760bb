"""Our server compared with others, through their HTTP APIs, on the same checkpoint.

python -m benchmarks.peers --serve FOLDER --peer vllm=http://127.0.0.1:9001 --peer llama=http://127.0.0.1:9002
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import about
from benchmarks.rounds import Ratio, Rounds, alternate
from benchmarks.stack import serving
from benchmarks.still import Still

from gemma_launcher.tools import api_client
from gemma_launcher.tools.bench import prompts
from gemma_launcher.tools.bench.load_generator import Workload, run_load_level, warm_up
from gemma_launcher.tools.bench.metrics import LoadLevelResult
from gemma_launcher.tools.bench.token_counter import token_counter

OURS = "ours"


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ours = parser.add_mutually_exclusive_group(required=True)
    ours.add_argument("--serve", metavar="MODEL", help="start our own stack with this checkpoint")
    ours.add_argument("--ours", metavar="URL", help="our own stack, which runs already")
    parser.add_argument("--peer", action="append", default=[], metavar="LABEL=URL", required=True)
    parser.add_argument(
        "--body", action="append", default=[], metavar="LABEL=JSON", help="more fields for one"
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--requests-per-client", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--most-busy", type=float, default=0.1, help="cores in use by others; more spoils a round"
    )
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of the prompts; the same again meets warm caches"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measures, prints the table, writes what was asked for."""
    given = parse()
    with contextlib.ExitStack() as held:
        ours = given.ours or held.enter_context(serving(given.serve)).api
        urls = {OURS: api_client.normalize_base_url(ours)}
        urls |= {label: api_client.normalize_base_url(url) for label, url in map(_pair, given.peer)}
        bodies = {label: json.loads(text) for label, text in map(_pair, given.body)}
        measured = asyncio.run(measure(urls, bodies, given))
    if given.json:
        given.json.write_text(json.dumps(as_json(measured, urls, given), indent=2) + "\n", encoding="utf-8")
    if given.png:
        draw(measured, given.png)


def _pair(text: str) -> tuple[str, str]:
    label, _, value = text.partition("=")
    if not value:
        raise SystemExit(f"{text!r} is not LABEL=VALUE")
    return label, value


async def measure(
    urls: Mapping[str, str], bodies: Mapping[str, Mapping[str, Any]], given: argparse.Namespace
) -> dict[int, Rounds[LoadLevelResult]]:
    """Clients → the rounds of every server."""
    loads: dict[str, Workload] = {}
    for label, url in urls.items():
        with api_client.create_client(url) as client:
            body = bodies.get(label, {})
            model = api_client.select_model(
                client, body.get("model")
            )  # not every server lists what it serves
        plain = Workload(model, given.max_tokens, body=body)
        async with api_client.create_async_client(url) as new:
            loads[label], notes = await warm_up(new, plain, "Tell me a story.")
        for note in notes:
            print(f"{label}: {note}")
    with token_counter(urls[OURS], loads[OURS].model) as count:
        texts = _texts(partial(prompts.make_prompts, count, given.prompt_tokens), given)

    still = Still({label: url for label, url in urls.items() if label != OURS})

    async def once(label: str, level: int, number: int) -> LoadLevelResult:
        # Connected anew, and for each request: a server that stood still may drop what it should keep.
        with still.but(label):
            async with api_client.create_async_client(urls[label]) as new:
                each = new.with_options(default_headers={"Connection": "close"})
                result = await run_load_level(each, loads[label], level, texts[level, number], _nothing)
        if result.failed:
            raise SystemExit(f"{label}: {result.failed} requests failed: {'; '.join(result.errors)}")
        return result

    measured: dict[int, Rounds[LoadLevelResult]] = {}
    with still.held():
        for level in given.clients:
            sides = {label: partial(once, label, level) for label in urls}
            measured[level] = await alternate(sides, given.rounds, given.most_busy)
            lines = table({level: measured[level]})  # told now, for what comes next may be spoilt
            print("\n".join(lines[2 if len(measured) > 1 else 0 :]), flush=True)
    return measured


def _texts(
    make: Callable[[int, int], prompts.PromptSet], given: argparse.Namespace
) -> dict[tuple[int, int], tuple[str, ...]]:
    """Prompts for each level and round: all servers get the same, none gets one twice."""
    texts = {}
    for level in given.clients:
        for number in range(3 * given.rounds):
            made = make(level * given.requests_per_client, given.seed * 10**6 + level * 1000 + number)
            texts[level, number] = made.texts
    return texts


def _nothing() -> None:
    pass


def table(measured: Mapping[int, Rounds[LoadLevelResult]]) -> list[str]:
    """Markdown: the medians, and our ratio to each, pair by pair."""
    lines = [
        "| clients | server | tokens in | tok/s | TTFT ms | ms/token | our tok/s ÷ its | its TTFT ÷ ours |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for clients, rounds in measured.items():
        ours = rounds.kept[OURS]
        for label, levels in rounds.kept.items():
            speed = Ratio.of(_speeds(ours), _speeds(levels))
            first = Ratio.of(_firsts(levels), _firsts(ours))
            ratios = ("", "") if label == OURS else (str(speed), str(first))
            lines.append(f"| {clients} | {label} | {' | '.join((*_medians(levels), *ratios))} |")
    return lines


def _medians(levels: Sequence[LoadLevelResult]) -> tuple[str, str, str, str]:
    fewest = min(level.prompt_tokens[0] for level in levels)
    most = max(level.prompt_tokens[1] for level in levels)
    per_token = [level.per_token_ms for level in levels if level.per_token_ms is not None]
    return (
        str(most) if fewest == most else f"{fewest} to {most}",
        f"{statistics.median(_speeds(levels)):.1f}",
        f"{statistics.median(_firsts(levels)):.0f}",
        f"{statistics.median(per_token):.1f}" if per_token else "–",
    )


def _speeds(levels: Sequence[LoadLevelResult]) -> list[float]:
    return [level.output_tokens_per_s for level in levels]


def _firsts(levels: Sequence[LoadLevelResult]) -> list[float]:
    return [level.first.p50 for level in levels if level.first is not None]


def as_json(
    measured: Mapping[int, Rounds[LoadLevelResult]], urls: Mapping[str, str], given: argparse.Namespace
) -> dict[str, Any]:
    """Everything, round by round."""
    settings = {name: value for name, value in vars(given).items() if name not in ("json", "png")}
    levels = {
        clients: {
            "spoilt": rounds.spoilt,
            "loads": rounds.loads,
            "servers": {label: [asdict(level) for level in kept] for label, kept in rounds.kept.items()},
        }
        for clients, rounds in measured.items()
    }
    return {"machine": about(), "servers": dict(urls), "settings": settings, "clients": levels}


def draw(measured: Mapping[int, Rounds[LoadLevelResult]], path: Path) -> None:
    """Output tokens/s and TTFT over the clients, the rounds' spread as bars."""
    import matplotlib as mpl  # noqa: PLC0415 - only needed for a picture

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    quantities = (("output tokens/s", _speeds), ("time to the first token, ms", _firsts))
    for axis, (title, values) in zip(axes, quantities, strict=True):
        for label in next(iter(measured.values())).kept:
            each = [values(rounds.kept[label]) for rounds in measured.values()]
            middle = [statistics.median(some) for some in each]
            below = [m - min(some) for m, some in zip(middle, each, strict=True)]
            above = [max(some) - m for m, some in zip(middle, each, strict=True)]
            axis.errorbar(list(measured), middle, yerr=[below, above], marker="o", capsize=3, label=label)
        axis.set(title=title, xlabel="clients", ylim=(0, None), xticks=list(measured))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
