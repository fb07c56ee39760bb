"""The command ``gemma-triton``."""

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from gemma_launcher.console import fail
from gemma_launcher.errors import CannotStart


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: without the program's name; those of this process when none are given.

    Returns:
        The exit code: 0, or 1 after one sentence on standard error.
    """
    options = _parser().parse_args(arguments)
    flags = {name: value for name, value in vars(options).items() if name != "command" and value is not None}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until there is something to stop
    try:
        return _run(options.command, flags)
    except (CannotStart, OSError) as error:
        fail(str(error))
        return 1
    except KeyboardInterrupt:
        return 0


def _run(command: str, flags: dict[str, Any]) -> int:
    # Imported late: --help and --version need none of it.
    from gemma_launcher.settings import read  # noqa: PLC0415

    settings = read(flags)
    if command == "doctor":
        from gemma_launcher import doctor  # noqa: PLC0415

        return doctor.run(settings)
    from gemma_launcher import serve  # noqa: PLC0415

    return serve.run(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gemma-triton", description="Gemma 3n on NVIDIA Triton behind an OpenAI-compatible API."
    )
    parser.add_argument("--version", action="version", version=f"gemma-triton {version('gemma-launcher')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run Triton and the API until Ctrl-C")
    _add_flags(serve)
    doctor = commands.add_parser("doctor", help="check this machine; each line is ok or says what to do")
    _add_flags(doctor)
    return parser


def _add_flags(parser: argparse.ArgumentParser) -> None:
    """Each flag is a field of the settings; one that is not given leaves it to the environment."""
    parser.add_argument(
        "--model", dest="model_name", metavar="MODEL", help="hub id or folder of the checkpoint (MODEL_NAME)"
    )
    parser.add_argument("--host", dest="api_host", help="address the API listens on (API_HOST; 127.0.0.1)")
    parser.add_argument(
        "--port", dest="api_port", type=int, help="port of the API (API_PORT; 8080); 0: a free one"
    )
    parser.add_argument(
        "--triton-url",
        dest="triton_grpc_url",
        metavar="HOST:PORT",
        help="gRPC address of a Triton that runs already; none is started then (TRITON_GRPC_URL)",
    )
    for kind, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        name = f"gemma_triton_{kind}_port"
        text = f"{kind} port of the embedded Triton ({name.upper()}; {port}); 0: a free one"
        parser.add_argument(f"--triton-{kind}-port", dest=name, type=int, metavar="PORT", help=text)
    parser.add_argument(
        "--model-repository",
        dest="gemma_model_repository",
        metavar="FOLDER",
        help="Triton's model repository (GEMMA_MODEL_REPOSITORY; the one of this checkout)",
    )


if __name__ == "__main__":
    sys.exit(main())
