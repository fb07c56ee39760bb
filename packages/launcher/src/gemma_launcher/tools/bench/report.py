"""The results as a table, a plot and JSON."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import plotext
from rich.console import Console
from rich.table import Table

from gemma_launcher.tools.bench.metrics import LatencySummary, LoadLevelResult

PLOT_WIDTH, PLOT_HEIGHT = 72, 18


def print_table(
    console: Console, title: str, levels: Sequence[LoadLevelResult], notes: Sequence[str]
) -> None:
    """Prints the table and the notes below it."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    for column in ("clients", "requests", "failed", "prompt tokens", "out tok/s", "all tok/s"):
        table.add_column(column, justify="right")
    for column in ("TTFT ms\np50 / p95 / p99", "gap ms\nmean / p50 / p95 / p99", "ms/token", "client CPU"):
        table.add_column(column, justify="right")
    for level in levels:
        table.add_row(*_row(level), style="red" if level.failed else None)
    console.print(table)
    for note in (*notes, *_warnings(levels)):
        console.print(f"note: {note}", markup=False, highlight=False)


def _row(level: LoadLevelResult) -> tuple[str, ...]:
    fewest, most = level.prompt_tokens
    first, gap = level.first, level.gap
    return (
        str(level.clients),
        str(level.requests),
        str(level.failed),
        str(most) if fewest == most else f"{fewest} to {most}",
        f"{level.output_tokens_per_s:,.1f}",
        f"{level.tokens_per_s:,.1f}",
        _ms(first, "p50", "p95", "p99"),
        _ms(gap, "mean", "p50", "p95", "p99"),
        "–" if level.per_token_ms is None else f"{level.per_token_ms:.1f}",
        f"{level.client_cpu:.0%}",
    )


def _ms(spread: LatencySummary | None, *names: str) -> str:
    return " / ".join(f"{getattr(spread, name):.1f}" for name in names) if spread else "–"


def _warnings(levels: Sequence[LoadLevelResult]) -> list[str]:
    warnings = []
    for level in levels:
        where = f"at {level.clients} clients"
        if level.failed:
            reasons = "; ".join(level.errors)
            failed = f"{level.failed} of {level.requests} requests failed"
            warnings.append(f"{where} {failed} and are not part of the metrics: {reasons}")
        if level.client_is_busy:
            warnings.append(
                f"{where} this program used {level.client_cpu:.0%} of a core: the server may be faster"
            )
        if level.tokens_per_piece > 1.05:
            warnings.append(
                f"{where} a chunk has {level.tokens_per_piece:.1f} tokens, so gaps exceed the time per token"
            )
    return warnings


def plot(series: Mapping[str, Sequence[tuple[float, float]]], title: str) -> str:
    """A line plot over the number of clients, as text without colours.

    Args:
        series: name → points (clients, value).
        title: of the plot.
    """
    figure = plotext.figure
    figure.clear()
    figure.plot_size(PLOT_WIDTH, PLOT_HEIGHT)
    figure.title(title)
    figure.label("clients", axis="x")
    for name, points in series.items():
        line = figure.signal([x for x, _ in points], [y for _, y in points])
        figure.draw(line.lines(True).label(name))
    return str(figure.build().string(colorless=True))


def as_json(
    about: Mapping[str, Any], levels: Sequence[LoadLevelResult], notes: Sequence[str]
) -> dict[str, Any]:
    """The results for other programs."""
    machine = {
        "system": platform.platform(),
        "processor": platform.processor(),
        "python": platform.python_version(),
    }
    return {**about, "machine": machine, "notes": list(notes), "levels": [asdict(level) for level in levels]}
