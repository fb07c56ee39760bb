"""Writes ``configuration.md`` from the settings objects: ``make docs``; ``--check`` fails if it differs."""

import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gemma_gateway.settings import GatewaySettings
from gemma_launcher.settings import LauncherSettings
from gemma_model.settings import Settings as ModelSettings
from gemma_playground.settings import PlaygroundSettings, variable

PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Configuration

Every setting, written by `make docs` from the settings objects; do not edit. All are environment
variables. Flags of `gemma-triton` win over them; the model's can also be edited in
`packages/model/src/gemma_model/model_repository/gemma3n/config.pbtxt`, over which the environment wins.
Sizes (`API_…_BYTES`, `GEMMA_…_BYTES`) have units: `2GiB` (2 × 2³⁰ bytes), `512MB` (512 × 10⁶ bytes), or are
numbers of bytes. A variable that begins with `API_`, `GEMMA_` or `PLAYGROUND_` and is not in the table is
reported with a warning.

Who reads it: the command `gemma-triton`, which hands all on to what it starts; the gateway, the model and
the playground, which containers start by themselves.

| variable | default | read by | meaning |
| --- | --- | --- | --- |
"""
FOOT = """
Of the variables that other programs know, these matter most: `HF_HOME` (where checkpoints of the hub are
kept), `XDG_CACHE_HOME` (where a generated checkpoint is kept outside a checkout), `TMPDIR` (where a run has
its temporary folder), `CUDA_VISIBLE_DEVICES`, `CXX` (the compiler of the CPU's kernels), `NO_COLOR`, and
OpenTelemetry's `OTEL_…`.
"""
PARTS: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("`gemma-triton`", LauncherSettings, ""),
    ("gateway", GatewaySettings, "API_"),
    ("model", ModelSettings, "GEMMA_"),
)
NAMED_OTHERWISE = {
    "API_TRITON_GRPC_URL": "TRITON_GRPC_URL",
    "API_MAX_AUDIO_SECONDS": "GEMMA_MAX_AUDIO_SECONDS",
    "API_OTEL_ENDPOINT": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "GEMMA_MODEL_NAME": "MODEL_NAME",
}


def page() -> str:
    """The whole page: a row for each variable, by the words of the first part that reads it."""
    found: dict[str, FieldInfo] = {}
    readers: dict[str, list[str]] = {}
    for part, name, info in [*_settings(), *_playground()]:
        found.setdefault(name, info)
        readers.setdefault(name, []).append(part)
    rows = [_row(name, info, ", ".join(readers[name])) for name, info in found.items()]
    return "".join([HEAD, *rows, FOOT])


def _settings() -> Iterator[tuple[str, str, FieldInfo]]:
    """Who reads it, name and description, of every variable of the packages."""
    for part, settings, prefix in PARTS:
        for field, info in settings.model_fields.items():
            name = prefix + field.upper()
            yield part, NAMED_OTHERWISE.get(name, name), info


def _playground() -> Iterator[tuple[str, str, FieldInfo]]:
    """The same of the playground, whose settings are a plain dataclass."""
    for each in fields(PlaygroundSettings):
        default = ",".join(each.default) if isinstance(each.default, tuple) else each.default
        info = FieldInfo(default=default, description=each.metadata["description"])
        yield "playground", variable(each.name), info


def _row(name: str, info: FieldInfo, readers: str) -> str:
    default = "" if info.default in (None, "") else f"`{info.default}`"
    meaning = (info.description or "").rstrip(".").replace("|", "\\|")
    return f"| `{name}` | {default} | {readers} | {meaning} |\n"


def main() -> None:
    """Command line."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/configuration.md is not what the settings say: run make docs")


if __name__ == "__main__":
    main()
