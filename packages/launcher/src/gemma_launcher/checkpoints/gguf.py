"""GGUF files: the model package makes the folder that represents one, in a process of its own."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from gemma_launcher.errors import CommandError
from gemma_wire import InvalidRequest
from gemma_wire.gguf import read_gguf
from gemma_wire.gguf_sources import read_reference

_MODULE = "gemma_model.gguf_checkpoint"


def prepare(path: Path, environment: Mapping[str, str]) -> Path:
    """The folder that represents a GGUF file. Only the header of the file is read.

    Args:
        path: the file, or a folder with one model.
        environment: for the process; ``GEMMA_ENCODERS`` says where the encoders are, and with
            ``GEMMA_TOWERS=none`` none are used.

    Raises:
        CommandError: the file is not supported; the message names the file and the problem.
    """
    command = [sys.executable, "-m", _MODULE, str(path)]
    if encoders := environment.get("GEMMA_ENCODERS"):
        command += ["--encoders", encoders]
    if environment.get("GEMMA_TOWERS") == "none":
        command.append("--text-only")
    process = subprocess.run(command, env=environment, check=False, capture_output=True, encoding="utf-8")
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise CommandError(f"the checkpoint {path} cannot be served: {reason}")
    return Path(process.stdout.strip())


def validate(folder: Path) -> None:
    """Checks the GGUF files of a folder that ``prepare`` made.

    Raises:
        CommandError: a file is missing, or has changed so that it is not valid any more.
    """
    try:
        for file in weight_files(folder):
            read_gguf(file)
    except InvalidRequest as error:
        raise CommandError(error.message) from None


def referenced_files(folder: Path) -> list[Path]:
    """The GGUF files of the text model of a folder that ``prepare`` made; empty for another folder.

    Raises:
        CommandError: the reference is damaged.
    """
    return _reference(folder)[0]


def referenced_encoders(folder: Path) -> Path | None:
    """The ``mmproj`` file, or the folder of a checkpoint, whose encoders a folder that ``prepare`` made uses.

    Raises:
        CommandError: the reference is damaged.
    """
    return _reference(folder)[1]


def weight_files(folder: Path) -> list[Path]:
    """The GGUF files of a folder that ``prepare`` made, that of the encoders among them.

    Raises:
        CommandError: the reference is damaged.
    """
    files, encoders = _reference(folder)
    return [*files, encoders] if encoders and encoders.suffix == ".gguf" else files


def encoder_note(folder: Path) -> str:
    """What users should know about the encoders of a GGUF file; empty for another folder.

    Raises:
        CommandError: the reference is damaged.
    """
    files, encoders = _reference(folder)
    if not files:
        return ""
    return f"Images and audio: the encoders of {encoders}" if encoders else "Text alone, without encoders"


def _reference(folder: Path) -> tuple[list[Path], Path | None]:
    try:
        return read_reference(folder)
    except InvalidRequest as error:
        raise CommandError(error.message) from None
