"""``python -m gemma_playground``: serves the page until SIGTERM or SIGINT."""

import os
import signal
import sys
import tempfile

from gemma_playground.settings import Settings


def main() -> None:
    """Serves; both signals end it with 0 at any moment, and nothing of it stays."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # uvicorn takes them over, and raises them at its end
    settings = Settings.read(None, os.environ)
    # Gradio empties its folder of uploads when it ends, so two playgrounds must not share one.
    with tempfile.TemporaryDirectory(prefix="playground-") as uploads:
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}
        from gemma_playground.server import serve  # noqa: PLC0415 - Gradio makes its folder when imported

        serve(settings)


if __name__ == "__main__":
    main()
