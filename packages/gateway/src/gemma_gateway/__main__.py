"""``python -m gemma_gateway``: the gateway as a process."""

import gc
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemma_gateway.settings import Settings


def main() -> None:
    """Serve until SIGINT or SIGTERM, which end it with 0 at any moment."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # until the server takes them over
    # Late, since it takes seconds, in which the first process of a container would not hear a signal.
    from gemma_gateway import app, auth, descriptors, logs, server  # noqa: PLC0415

    settings = _settings()
    logs.configure_logging(settings.log_level, settings.log_format)
    auth.warn_if_open(settings)
    descriptors.raise_limit()
    serving = server.server(app.create_app(settings), settings)
    sys.setswitchinterval(0.001)  # how long a thread with a large body may keep the event loop waiting
    gc.freeze()  # what is loaded now stays: the collector need not look at it while requests wait
    serving.run()


def _settings() -> "Settings":
    from pydantic import ValidationError  # noqa: PLC0415

    from gemma_gateway.settings import Settings, variable  # noqa: PLC0415

    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        sys.exit(f"gemma-gateway: {variable(str(first['loc'][0]))}: {first['msg']}")


if __name__ == "__main__":
    main()
