"""``gemma-triton playground``: the page alone, for any OpenAI-compatible server."""

import os
from argparse import Namespace
from typing import NoReturn

from gemma_launcher import endpoint, ports, preflight, services
from gemma_launcher.errors import CannotStart
from gemma_launcher.places import NO_PLAYGROUND, has_playground
from gemma_launcher.settings import Settings


def run(settings: Settings, options: Namespace) -> NoReturn:
    """Becomes the playground: signals reach it, and its exit code is this command's.

    Raises:
        CannotStart: it is not installed, the address is none, or the port is not free.
    """
    if not has_playground():
        raise CannotStart(NO_PLAYGROUND)
    url = endpoint.base_url(settings, options.base_url)
    settings = preflight.with_free_ports(settings)
    ports.check((preflight.playground(settings, "--port or PLAYGROUND_PORT"),))
    environment = services.playground_environment(os.environ, settings, url)
    os.execve(services.PLAYGROUND_COMMAND[0], services.PLAYGROUND_COMMAND, environment)
