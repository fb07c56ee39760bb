"""``gemma-triton bench``: warms up, runs each load level and reports the results."""

import asyncio
import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gemma_launcher.errors import CommandError
from gemma_launcher.settings import LauncherSettings
from gemma_launcher.tools import api_client
from gemma_launcher.tools.bench import prompts, report
from gemma_launcher.tools.bench.load_generator import Workload, warm_up  # fmt: skip
from gemma_launcher.tools.bench.load_generator import run_load_level as run_level
from gemma_launcher.tools.bench.metrics import LoadLevelResult
from gemma_launcher.tools.bench.token_counter import token_counter

REQUESTS_PER_CLIENT = 4
WARM_UP_SEED = 10**6
STANDARD_OUTPUT = "-"
WIDTH = 140  # of a table that goes into a file


def run(settings: LauncherSettings, options: Namespace) -> int:
    """Runs the benchmark; returns 1 if a request failed.

    Raises:
        CommandError: an option is not valid, or the server cannot be measured.
    """
    url = api_client.resolve_base_url(settings)
    file = None if options.json in (None, STANDARD_OUTPUT) else Path(options.json)
    if file:
        _check_writable(file)
    if options.json == STANDARD_OUTPUT and options.plot:
        raise CommandError("--plot draws on standard output; use --json FILE with it")
    with api_client.create_client(url) as client:
        model = api_client.select_model(client, options.model)
    workload = Workload(model, options.max_tokens, options.images, _body(options.body))
    levels, notes = asyncio.run(_measure(url, workload, options))
    about = {"base_url": url, "model": model, "prompt_tokens": options.prompt_tokens}
    about |= {"max_tokens": options.max_tokens, "images": options.images}
    text = json.dumps(report.as_json(about, levels, notes), indent=2)
    if file:
        file.write_text(text + "\n", encoding="utf-8")
    if options.json == STANDARD_OUTPUT:
        print(text)
    else:
        _print_table(options, f"{model} at {url}", levels, notes)
    return 1 if any(level.failed for level in levels) else 0


def _print_table(
    options: Namespace, where: str, levels: Sequence[LoadLevelResult], notes: Sequence[str]
) -> None:
    title = f"{where}, {options.prompt_tokens} tokens in, {options.max_tokens} out, streamed"
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    report.print_table(console, title, levels, notes)
    if options.plot:
        _draw(levels)


def _check_writable(path: Path) -> None:
    """Checks this before the benchmark runs."""
    try:
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from None


def _body(text: str | None) -> dict[str, Any]:
    try:
        body = json.loads(text or "{}")
    except ValueError as error:
        raise CommandError(f"--body is not JSON ({error})") from None
    if not isinstance(body, dict):
        raise CommandError("--body is not a JSON object")
    return body


async def _measure(
    url: str, workload: Workload, options: Namespace
) -> tuple[list[LoadLevelResult], list[str]]:
    requests = [options.requests or REQUESTS_PER_CLIENT * clients for clients in options.clients]
    with token_counter(url, workload.model, workload.images) as count:
        (first,) = prompts.make_prompts(count, options.prompt_tokens, 1, WARM_UP_SEED).texts
        made = [
            prompts.make_prompts(count, options.prompt_tokens, n, seed) for seed, n in enumerate(requests)
        ]
    async with api_client.create_async_client(url) as client:
        workload, notes = await warm_up(client, workload, first)
        if not all(some.exact for some in made):
            notes.append("the server has no /tokenize: prompts have approximately the requested length")
        levels = []
        with _progress() as progress:
            for clients, some in zip(options.clients, made, strict=True):
                task = progress.add_task(f"{clients} clients", total=len(some.texts))
                tick = lambda task=task: progress.advance(task)  # noqa: E731
                levels.append(await run_level(client, workload, clients, some.texts, tick))
    return levels, notes


def _progress() -> Progress:
    """On standard error, and only on a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


def _draw(levels: Sequence[LoadLevelResult]) -> None:
    speed = [(level.clients, level.output_tokens_per_s) for level in levels]
    print(report.plot({"output tokens/s": speed}, "output tokens/s"))
    first = [(level.clients, level.first.p50) for level in levels if level.first]
    print(report.plot({"p50": first}, "time to the first token, ms"))
