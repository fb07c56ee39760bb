"""``python -m gemma_gateway``: the gateway as a process."""

import gc
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemma_gateway.settings import GatewaySettings


def main() -> None:
    """Serves until SIGINT or SIGTERM, after which the exit status is 0."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # until the server installs its own handlers
    # Imported after that, since it takes seconds: process 1 of a container ignores signals without a handler.
    from gemma_gateway import app, auth, malloc  # noqa: PLC0415
    from gemma_gateway.http_server import file_descriptors, server  # noqa: PLC0415
    from gemma_gateway.observability import logs  # noqa: PLC0415
    from gemma_wire.setting_names import reported_settings  # noqa: PLC0415

    malloc.return_large_blocks()
    settings = _settings()
    logs.configure_logging(settings.log_level, settings.log_format)
    auth.warn_if_open(settings)
    for sentence in reported_settings(os.environ, ("API_",)):
        logging.getLogger("gemma_gateway").warning(sentence)
    file_descriptors.raise_limit()
    gateway_server = server.make_server(app.create_app(settings), settings)
    sys.setswitchinterval(
        0.001
    )  # the longest time for which a thread that parses a body delays the event loop
    gc.freeze()  # what is loaded now is never freed, so garbage collection can skip it
    gateway_server.run()


def _settings() -> "GatewaySettings":
    from pydantic import ValidationError  # noqa: PLC0415

    from gemma_gateway.settings import GatewaySettings, variable  # noqa: PLC0415

    try:
        return GatewaySettings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        sys.exit(
            f"gemma-gateway: {variable(str(first['loc'][0]))}: {first['msg'].removeprefix('Value error, ')}"
        )


if __name__ == "__main__":
    main()
