"""``python -m gemma_playground``: serves the page until SIGTERM or SIGINT."""

import os
import signal
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence


def settings(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> Namespace:
    """Flags win over the environment; an empty variable is none. The key is no flag: ``ps`` shows them."""
    told = {name: value for name, value in environment.items() if value}
    flags = ArgumentParser("gemma_playground", description="A page to talk to an OpenAI server.")
    flags.add_argument("--base-url", default=told.get("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1"))
    flags.add_argument("--host", default=told.get("PLAYGROUND_HOST", "127.0.0.1"))
    flags.add_argument("--port", type=int, default=told.get("PLAYGROUND_PORT", 7860))
    return flags.parse_args(arguments)


def main() -> None:
    """Serves; both signals end it with 0 at any moment, whoever has the page open, and leave nothing."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # uvicorn takes them over, and raises them at its end
    told = settings(None, os.environ)
    # Gradio empties its folder of uploads when it ends, so two playgrounds must not share one.
    with tempfile.TemporaryDirectory(prefix="playground-") as uploads:
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}
        from gemma_playground.server import serve  # noqa: PLC0415 - Gradio makes its folder when imported

        serve(told.base_url, os.environ.get("OPENAI_API_KEY", ""), told.host, told.port)


if __name__ == "__main__":
    main()
