"""``gemma-triton playground``: serves the playground for any OpenAI-compatible server."""

import os
from argparse import Namespace
from typing import NoReturn

from gemma_launcher.errors import CommandError
from gemma_launcher.paths import PLAYGROUND_NOT_INSTALLED, is_playground_installed
from gemma_launcher.processes import ports, preflight, services
from gemma_launcher.settings import LauncherSettings
from gemma_launcher.tools import api_client


def run(settings: LauncherSettings, _: Namespace) -> NoReturn:
    """Replaces this process with the playground, which so gets the signals and sets the exit code.

    Raises:
        CommandError: it is not installed, the base URL is not valid, or the port is not free.
    """
    if not is_playground_installed():
        raise CommandError(PLAYGROUND_NOT_INSTALLED)
    url = api_client.resolve_base_url(settings)
    settings = preflight.assign_free_ports(settings)
    ports.check_ports((preflight.playground_binding(settings, "--port or PLAYGROUND_PORT"),))
    environment = services.playground_environment(os.environ, settings, url)
    os.execve(services.PLAYGROUND_COMMAND[0], services.PLAYGROUND_COMMAND, environment)
