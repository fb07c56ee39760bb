"""``gemma-triton bench``: look, warm up, measure each level, tell."""

import asyncio
import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gemma_launcher import endpoint
from gemma_launcher.bench import prompts, report
from gemma_launcher.bench.figures import Level
from gemma_launcher.bench.load import Load, warm_up  # fmt: skip
from gemma_launcher.bench.load import run as run_level
from gemma_launcher.bench.tokens import counting
from gemma_launcher.errors import CannotStart
from gemma_launcher.settings import Settings

REQUESTS_PER_CLIENT = 4
WARM_UP_SEED = 10**6
WIDTH = 140  # of a table that goes into a file


def run(settings: Settings, options: Namespace) -> int:
    """Measures; 1 when a request failed, since the figures are of the others then.

    Raises:
        CannotStart: the server cannot be measured.
    """
    url = endpoint.base_url(settings, options.base_url)
    if options.json:
        _check_writable(Path(options.json))
    with endpoint.connect(url) as client:
        model = endpoint.pick_model(client, options.model)
    load = Load(model, options.max_tokens, options.images, _body(options.body))
    levels, notes = asyncio.run(_measure(url, load, options))
    title = f"{model} at {url}, {options.prompt_tokens} tokens in, {options.max_tokens} out, streamed"
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    report.show(console, title, levels, notes)
    if options.plot:
        _draw(levels)
    if options.json:
        about = {"base_url": url, "model": model, "prompt_tokens": options.prompt_tokens}
        about |= {"max_tokens": options.max_tokens, "images": options.images}
        text = json.dumps(report.as_json(about, levels, notes), indent=2)
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    return 1 if any(level.failed for level in levels) else 0


def _check_writable(path: Path) -> None:
    """Before minutes are spent on figures that have nowhere to go."""
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise CannotStart(f"{path} cannot be written: {error.strerror}") from None


def _body(text: str | None) -> dict[str, Any]:
    try:
        body = json.loads(text or "{}")
    except ValueError as error:
        raise CannotStart(f"--body is not JSON ({error})") from None
    if not isinstance(body, dict):
        raise CannotStart("--body is not a JSON object")
    return body


async def _measure(url: str, load: Load, options: Namespace) -> tuple[list[Level], list[str]]:
    requests = [options.requests or REQUESTS_PER_CLIENT * clients for clients in options.clients]
    with counting(url, load.model, load.pictures) as count:
        (first,) = prompts.make(count, options.prompt_tokens, 1, WARM_UP_SEED).texts
        made = [prompts.make(count, options.prompt_tokens, n, seed) for seed, n in enumerate(requests)]
    async with endpoint.connect_async(url) as client:
        load, notes = await warm_up(client, load, first)
        if not all(some.exact for some in made):
            notes.append("the server does not count tokens (/tokenize): prompts have about the wanted length")
        levels = []
        with _progress() as progress:
            for clients, some in zip(options.clients, made, strict=True):
                task = progress.add_task(f"{clients} clients", total=len(some.texts))
                tick = lambda task=task: progress.advance(task)  # noqa: E731
                levels.append(await run_level(client, load, clients, some.texts, tick))
    return levels, notes


def _progress() -> Progress:
    """On standard error, and only where somebody can watch."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


def _draw(levels: Sequence[Level]) -> None:
    speed = [(level.clients, level.output_tokens_per_s) for level in levels]
    print(report.plot({"output tokens/s": speed}, "output tokens/s"))
    first = [(level.clients, level.first.p50) for level in levels if level.first]
    print(report.plot({"p50": first}, "time to the first token, ms"))
