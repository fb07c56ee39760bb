"""``gemma-triton quantize``: writes a quantised copy of a checkpoint."""

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import NoReturn

from gemma_launcher.checkpoints import hub, resolver
from gemma_launcher.checkpoints.validation import validate_checkpoint
from gemma_launcher.settings import LauncherSettings, without_secrets

MODULE = "gemma_model.weights.quantize_checkpoint"


def run(settings: LauncherSettings, options: Namespace) -> NoReturn:
    """Replaces this process with the one that quantises, which so gets the signals and sets the exit code.

    Raises:
        CommandError: there is no such checkpoint, or it is not complete.
    """
    source = _source_folder(settings, options.source)
    command = [sys.executable, "-m", MODULE, str(source), options.target, f"--format={options.format}"]
    command += [f"--embedding={options.embedding}", f"--per-layer-table={options.per_layer_table}"]
    os.execve(command[0], command, without_secrets(os.environ))


def _source_folder(settings: LauncherSettings, name: str) -> Path:
    """The folder of that name, or that of a hub model, downloaded if it is not in the cache."""
    folder = resolver.local_folder(name)
    if folder is None:
        return hub.fetch_checkpoint(name, settings.token, print)
    validate_checkpoint(folder)
    return folder
