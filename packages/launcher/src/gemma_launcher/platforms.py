"""What runs on which system: tritonserver only where its wheel exists, serving only on POSIX systems."""

import platform
import sys
from typing import Final

_WHEELS: Final = (("Linux", "x86_64"), ("Linux", "aarch64"))
_NAMES: Final = {"Darwin": "macOS"}
_INSTEAD: Final = (
    "run the containers (`docker compose up`, docs/containers.md), or use a Triton on another machine with "
    "--triton-url HOST:PORT (TRITON_GRPC_URL)"
)


def no_triton(system: str = "", machine: str = "") -> str:
    """Why there is no tritonserver, and what to do instead.

    Args:
        system: as ``platform.system()``, the default.
        machine: as ``platform.machine()``, the default.
    """
    system, machine = system or platform.system(), machine or platform.machine()
    if (system, machine) in _WHEELS:
        return (
            "the nvidia-pytriton wheel, which contains tritonserver, is not installed; run `poetry install` "
            "in a checkout or `pip install nvidia-pytriton==0.7.0`, or use a Triton on another machine with "
            "--triton-url HOST:PORT (TRITON_GRPC_URL)"
        )
    where = f"{_NAMES.get(system, system)} on {machine}"
    return (
        f"there is no tritonserver for {where}: its wheel exists for Linux on x86-64 and aarch64; {_INSTEAD}"
    )


def no_posix(command: str, system: str = sys.platform) -> str:
    """Why a command that needs a POSIX system cannot run; empty if it can."""
    if system != "win32":
        return ""
    return (
        f"`gemma-triton {command}` does not run on Windows; run the containers (`docker compose up`, "
        "docs/containers.md), or use WSL 2"
    )
