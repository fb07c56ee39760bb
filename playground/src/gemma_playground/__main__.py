"""``python -m gemma_playground``: serves the page until SIGTERM or SIGINT."""

import os
import signal
import sys
import tempfile
from pathlib import Path

from gemma_playground.settings import Settings


def main() -> None:
    """Serves; both signals end it with 0 at any moment, whoever has the page open, and leave nothing."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # uvicorn takes them over, and raises them at its end
    settings = Settings.read(None, os.environ)
    # Two playgrounds must not share a folder of files: each deletes its own when it ends.
    with tempfile.TemporaryDirectory(prefix="playground-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        from gemma_playground.server import serve  # noqa: PLC0415 - Gradio makes its folder when imported

        serve(settings, os.environ.get("OPENAI_API_KEY", ""), Path(folder).resolve())


if __name__ == "__main__":
    main()
