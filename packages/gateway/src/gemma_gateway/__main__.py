"""``python -m gemma_gateway``: the gateway as a process."""

import sys

import uvicorn
from pydantic import ValidationError

from gemma_gateway.app import create_app
from gemma_gateway.settings import Settings
from gemma_gateway.telemetry import configure_logging


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    settings = _settings()
    configure_logging(settings.log_level)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        sys.exit(f"gemma-gateway: {first['loc'][0]}: {first['msg']}")


if __name__ == "__main__":
    main()
