"""``gemma-triton transcribe``: audio files to text or subtitles, with a progress bar."""

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import openai
from openai import NOT_GIVEN
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gemma_launcher.errors import CommandError
from gemma_launcher.settings import LauncherSettings
from gemma_launcher.tools import api_client

SUFFIXES: Final = {"srt": ".srt", "vtt": ".vtt", "text": ".txt", "json": ".json"}
"""Format → suffix of the file that is written."""
_WITH_TIMES: Final = {"srt": "srt", "vtt": "vtt"}
"""Formats that are requested as they are; the others are made from ``verbose_json``, which has times."""
OnProgress = Callable[[float, float | None], None]
"""Called with the seconds that are transcribed, and with all seconds if the server says how many."""


def run(settings: LauncherSettings, options: Namespace) -> int:
    """Transcribes the files one after the other.

    Raises:
        CommandError: a file cannot be read or written, or the server refuses it.
    """
    url = api_client.resolve_base_url(settings)
    targets = _targets(options)
    with api_client.create_client(url) as client, _progress() as progress:
        model = api_client.select_model(client, options.model)
        for source, target in targets:
            task = progress.add_task(source.name, total=None, seconds="")
            with _opened(source) as file:
                text = _transcribe(client, url, model, file, options, _reporter(progress, task))
            _write(text, target)
    return 0


def _targets(options: Namespace) -> list[tuple[Path, Path | None]]:
    """Each file, and where its transcript is written; ``None``: to the standard output."""
    sources = [Path(name).expanduser() for name in options.files]
    if options.output is None:
        return [(source, None) for source in sources]
    output, suffix = Path(options.output).expanduser(), SUFFIXES[options.format]
    if output.is_dir():
        return [(source, output / (source.stem + suffix)) for source in sources]
    if len(sources) > 1:
        raise CommandError(f"{output} is not a folder; with several files --output must be one")
    return [(sources[0], output)]


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None


def _write(text: str, target: Path | None) -> None:
    if target is None:
        print(text)
        return
    try:
        target.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{target} cannot be written: {error.strerror}") from None


def _transcribe(
    client: openai.OpenAI, url: str, model: str, file: BinaryIO, options: Namespace, report: OnProgress
) -> str:
    """The transcript of a file in the requested format."""
    create: Any = client.audio.transcriptions.with_raw_response.create
    try:
        response = create(
            file=file,
            model=model,
            language=options.language or NOT_GIVEN,
            response_format=_WITH_TIMES.get(options.format, "verbose_json"),
            stream=True,
        )
        length = response.headers.get("x-audio-seconds")
        done = _last_event(response.parse(), float(length) if length else None, report)
    except openai.OpenAIError as error:
        raise api_client.to_command_error(error, url) from None
    return str(done.model_dump_json(indent=2, exclude={"type"}) if options.format == "json" else done.text)


def _last_event(events: Any, length: float | None, report: OnProgress) -> Any:
    """The event with the complete transcript."""
    for event in events:
        if event.type == "transcript.text.segment":
            report(event.end, length)
        elif event.type == "transcript.text.done":
            report(length or 0.0, length)
            return event
    raise api_client.RequestFailed("the response ended before the transcript was complete")


def _progress() -> Progress:
    """Progress bars on the standard error, which are shown only if it is a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[seconds]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # a transcript on the same terminal is printed above the bar
    )


def _reporter(progress: Progress, task: TaskID) -> OnProgress:
    def report(seconds: float, length: float | None) -> None:
        of = f" of {length:.0f}" if length else ""
        progress.update(task, completed=seconds, total=length, seconds=f"{seconds:.0f}{of} s")

    return report
