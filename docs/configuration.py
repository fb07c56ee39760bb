"""Writes ``configuration.md`` from the settings objects: ``make docs``; ``--check`` fails if it differs."""

import sys
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gemma_gateway.settings import Settings as GatewaySettings
from gemma_launcher.settings import Settings as LauncherSettings
from gemma_model.settings import Settings as ModelSettings

PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Configuration

Every setting, written by `make docs` from the settings objects; do not edit. All are environment
variables. Flags of `gemma-triton` win over them; the model's can also be edited in
`model_repository/gemma3n/config.pbtxt`, over which the environment wins.

Who reads it: the command `gemma-triton`, which hands all on to what it starts; the gateway and the model,
which containers start by themselves.

| variable | default | read by | meaning |
| --- | --- | --- | --- |
"""
FOOT = """
Of the variables that other programs know, these matter most: `HF_HOME` (where checkpoints of the hub are
kept), `TMPDIR` (where a run has its temporary folder), `CUDA_VISIBLE_DEVICES`, `CXX` (the compiler of the
CPU's kernels), `NO_COLOR`, and OpenTelemetry's `OTEL_…`.
"""
PARTS: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("`gemma-triton`", LauncherSettings, ""),
    ("gateway", GatewaySettings, "API_"),
    ("model", ModelSettings, "GEMMA_"),
)
NAMED_OTHERWISE = {
    "API_TRITON_GRPC_URL": "TRITON_GRPC_URL",
    "API_OTEL_ENDPOINT": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "GEMMA_MODEL_NAME": "MODEL_NAME",
}


def page() -> str:
    """The whole page: a row for each variable, by the words of the first part that reads it."""
    found: dict[str, FieldInfo] = {}
    readers: dict[str, list[str]] = {}
    for part, settings, prefix in PARTS:
        for field, info in settings.model_fields.items():
            name = NAMED_OTHERWISE.get(prefix + field.upper(), prefix + field.upper())
            found.setdefault(name, info)
            readers.setdefault(name, []).append(part)
    rows = [_row(name, info, ", ".join(readers[name])) for name, info in found.items()]
    return "".join([HEAD, *rows, FOOT])


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
