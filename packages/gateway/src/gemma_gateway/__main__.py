"""``python -m gemma_gateway``: the gateway as a process."""

import sys

from pydantic import ValidationError

from gemma_gateway.app import create_app
from gemma_gateway.auth import warn_if_open
from gemma_gateway.logs import configure_logging
from gemma_gateway.server import server
from gemma_gateway.settings import Settings, variable


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    settings = _settings()
    configure_logging(settings.log_level, settings.log_format)
    warn_if_open(settings)
    server(create_app(settings), settings).run()


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        sys.exit(f"gemma-gateway: {variable(str(first['loc'][0]))}: {first['msg']}")


if __name__ == "__main__":
    main()
