"""``python -m gemma_playground``: serves the page until SIGTERM or SIGINT."""

import os
import signal
import sys
import tempfile
from pathlib import Path

from gemma_playground.gradio_import import skip_type_stubs
from gemma_playground.settings import PlaygroundSettings


def main() -> None:
    """Serves until SIGTERM or SIGINT, which end it at any time with exit code 0 and without leftovers."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, lambda *_: sys.exit(0)
        )  # uvicorn replaces these handlers, and raises the signal again at its end
    settings = PlaygroundSettings.read(None, os.environ)
    # Each playground has its own folder of files, which it deletes when it ends.
    with tempfile.TemporaryDirectory(prefix="playground-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        skip_type_stubs()
        from gemma_playground.server import serve  # noqa: PLC0415 - Gradio makes its folder when imported

        serve(settings, os.environ.get("OPENAI_API_KEY", ""), Path(folder).resolve())


if __name__ == "__main__":
    main()
