"""Writes ``configuration.md`` from the settings objects: ``make docs``; ``--check`` fails if it differs."""

import sys
from pathlib import Path

from pydantic import BaseModel

from gemma_gateway.settings import Settings as GatewaySettings
from gemma_launcher.settings import Settings as LauncherSettings
from gemma_model.settings import Settings as ModelSettings

PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Configuration

Every setting, written by `make docs` from the settings objects; do not edit. All are environment
variables. Flags of `gemma-triton serve` win over them; the model's can also be edited in
`model_repository/gemma3n/config.pbtxt`, over which the environment wins.
"""
PARTS: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("`gemma-triton serve`", LauncherSettings, ""),
    ("The gateway", GatewaySettings, "API_"),
    ("The model", ModelSettings, "GEMMA_"),
)
NAMED_OTHERWISE = {
    "API_TRITON_GRPC_URL": "TRITON_GRPC_URL",
    "API_OTEL_ENDPOINT": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "GEMMA_MODEL_NAME": "MODEL_NAME",
}


def table(settings: type[BaseModel], prefix: str) -> str:
    """A row for each setting: variable, default, meaning."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for field, info in settings.model_fields.items():
        name = prefix + field.upper()
        default = "" if info.default in (None, "") else f"`{info.default}`"
        meaning = (info.description or "").rstrip(".").replace("|", "\\|")
        rows.append(f"| `{NAMED_OTHERWISE.get(name, name)}` | {default} | {meaning} |")
    return "\n".join(rows)


def page() -> str:
    """The whole page."""
    parts = (f"## {title}\n\n{table(settings, prefix)}\n" for title, settings, prefix in PARTS)
    return "\n".join([HEAD, *parts])


def main() -> None:
    """Command line."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/configuration.md is not what the settings say: run make docs")


if __name__ == "__main__":
    main()
