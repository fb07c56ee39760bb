"""The embedded Triton: what it needs to run from its wheel, and how it is started.

The ``nvidia-pytriton`` wheel carries a whole tritonserver. Nothing of that package's Python API is used.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from gemma_launcher.errors import CannotStart
from gemma_launcher.settings import Settings
from gemma_launcher.triton_address import LOOPBACK, TritonAddress
from gemma_wire.tensors import MODEL

STUB = "triton_python_backend_stub"
EXIT_TIMEOUT_S = 3
"""How long Triton waits for running requests when it is told to stop; the gateway's have ended by then."""

TRIAL_S = 30.0
CONTAINER_MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_VERSION = re.compile(r"server_version\s*\|\s*(\S+)")
_MISSING_LIBRARY = re.compile(r"error while loading shared libraries: (\S+): cannot open")


@dataclass(frozen=True)
class Wheel:
    """Where the wheel keeps its parts."""

    server: Path
    backend: Path
    stub: Path
    libraries: Path


def find_wheel() -> Wheel:
    """The parts of the installed wheel.

    Raises:
        CannotStart: it is not installed, or has nothing for this Python.
    """
    spec = find_spec("pytriton")  # does not import it
    if spec is None or spec.origin is None:
        raise CannotStart(
            "the nvidia-pytriton wheel, which carries tritonserver, is not installed (it exists for Linux on "
            "x86-64 and aarch64); run `poetry install`, or use a Triton elsewhere with --triton-url HOST:PORT"
        )
    package = Path(spec.origin).parent
    home = package / "tritonserver"
    stub = home / "python_backend_stubs" / _PYTHON / STUB
    if not stub.is_file():
        have = ", ".join(sorted(path.parent.name for path in home.glob(f"python_backend_stubs/*/{STUB}")))
        raise CannotStart(f"the nvidia-pytriton wheel has no stub for Python {_PYTHON}, only for {have}")
    return Wheel(
        home / "bin" / "tritonserver",
        home / "backends" / "python",
        stub,
        package.parent / "nvidia_pytriton.libs",
    )


def prepare(wheel: Wheel, folder: Path) -> None:
    """Lays out what Triton needs to find together, in the run's temporary folder.

    ``backends/python``: the backend's files, and beside them the stub of this Python, with its run bit
    set (a copy, since the wheel may not be ours to change). ``lib``: a link to libpython alone, so that
    ``LD_LIBRARY_PATH`` brings no other library of its folder into the stub.

    Raises:
        CannotStart: there is no room.
    """
    try:
        _lay_out(wheel, folder)
    except OSError as error:
        why = error.strerror or error
        raise CannotStart(f"{folder} cannot be filled: {why}; set TMPDIR to another folder") from None


def _lay_out(wheel: Wheel, folder: Path) -> None:
    backend, libraries = folder / "backends" / "python", folder / "lib"
    backend.mkdir(parents=True)
    libraries.mkdir()
    for part in wheel.backend.iterdir():
        (backend / part.name).symlink_to(part)
    shutil.copyfile(wheel.stub, backend / STUB)
    (backend / STUB).chmod(0o755)
    if libpython := find_libpython():
        (libraries / libpython.name).symlink_to(libpython)


def find_libpython() -> Path | None:
    """``libpythonX.Y.so.1.0`` of this Python; none when only the system's loader can know it."""
    name = f"libpython{_PYTHON}.so.1.0"
    folders = [Path(sys.base_prefix) / "lib"]
    if library_folder := sysconfig.get_config_var("LIBDIR"):
        triplet = sysconfig.get_config_var("MULTIARCH") or ""
        folders = [Path(library_folder), Path(library_folder) / triplet, *folders]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def environment(base: Mapping[str, str], wheel: Wheel, folder: Path) -> dict[str, str]:
    """What Triton and its stub find around them.

    The stub embeds Python, which finds its home by looking for ``python3`` on PATH: with this virtual
    environment first it gets this environment's packages, and needs no PYTHONPATH.
    """
    libraries = [str(folder / "lib"), str(wheel.libraries), base.get("LD_LIBRARY_PATH", "")]
    path = [str(Path(sys.executable).parent), base.get("PATH", os.defpath)]
    return {
        **base,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "PATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
    }


def check(wheel: Wheel, folder: Path, env: Mapping[str, str]) -> str:
    """Runs the stub and the server for a moment: the surest way to know that they can run.

    Args:
        wheel: what to run.
        folder: as laid out by ``prepare``.
        env: as made by ``environment``.

    Returns:
        The server's version, such as 2.51.0.

    Raises:
        CannotStart: one of them cannot, and why.
    """
    if shutil.which("bash", path=env["PATH"]) is None:
        raise CannotStart("Triton starts its Python stub through bash, which is not installed")
    check_stub(folder, env)
    # It has no --version, but tells its version before it finds that there is nothing to serve.
    nothing = ("--allow-http=false", "--allow-grpc=false", "--allow-metrics=false")
    said = _run(wheel.server, env, f"--model-repository={folder / 'nothing'}", *nothing)
    found = _VERSION.search(said)
    return found[1] if found else "unknown"


def check_stub(folder: Path, env: Mapping[str, str]) -> None:
    """Runs the stub for a moment; it needs libpython.

    Raises:
        CannotStart: as in ``check``.
    """
    _run(folder / "backends" / "python" / STUB, env)


def check_numpy() -> None:
    """Passes with numpy 1: the stub is built against it, and with numpy 2 every STRING tensor is corrupt.

    Raises:
        CannotStart: another numpy is installed.
    """
    if not version("numpy").startswith("1."):
        raise CannotStart(
            f"numpy {version('numpy')} is installed, and Triton's Python stub works with numpy 1 alone; "
            "run `poetry install`, or `pip install 'numpy<2'`"
        )


def _run(program: Path, env: Mapping[str, str], *arguments: str) -> str:
    """What the program says; its exit code is of no interest as long as the loader could start it."""
    try:
        run = subprocess.run(
            [program, *arguments], env=env, capture_output=True, text=True, timeout=TRIAL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotStart(f"{program} cannot be run: {_why(error)}") from None
    if run.returncode in (126, 127) or run.returncode < 0:
        raise CannotStart(_cannot_load(program, run.stderr))
    return run.stdout + run.stderr


def _why(error: OSError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, PermissionError):
        return "permission denied; if its folder is mounted noexec, set TMPDIR to one that is not"
    return str(error)


def _cannot_load(program: Path, stderr: str) -> str:
    missing = _MISSING_LIBRARY.search(stderr)
    if missing and missing[1].startswith("libpython"):
        return (
            f"{missing[1]} is missing, which Triton's Python backend needs and this Python does not bring: "
            f"install the package libpython{_PYTHON} (`sudo apt-get install libpython{_PYTHON}`)"
        )
    reason = stderr.strip().splitlines()[-1] if stderr.strip() else "it ended without a word"
    return f"{program.name} of the nvidia-pytriton wheel does not run on this system: {reason}"


def command(
    settings: Settings, address: TritonAddress, wheel: Wheel, repository: Path, folder: Path, name: str
) -> tuple[str, ...]:
    """The command line of the server.

    Args:
        settings: the metrics port, the log level, the limit of a start.
        address: where it listens.
        wheel: where the server is.
        repository: the model repository.
        folder: as laid out by ``prepare``.
        name: what its shared memory files start with.
    """
    flags = {
        "model-repository": repository,
        "backend-directory": folder / "backends",
        **address.flags,
        "metrics-address": LOOPBACK,
        "metrics-port": settings.gemma_triton_metrics_port,
        "model-control-mode": "explicit" if settings.gemma_triton_model_control else "none",
        "exit-timeout-secs": EXIT_TIMEOUT_S,
        "log-verbose": settings.triton_log_level,
        # The Python backend keeps all tensors in host memory.
        "pinned-memory-pool-byte-size": 0,
        "allow-gpu-metrics": str(has_gpu()).lower(),
    }
    backend = {
        "shm-region-prefix-name": f"{name}-",
        # How long the stub may take to import the model; 30 s otherwise, which torch alone can need.
        "stub-timeout-seconds": settings.gemma_triton_start_limit,
    }
    wanted = (f"--load-model={MODEL}",) if settings.gemma_triton_model_control else ()
    return (
        str(wheel.server),
        *wanted,
        # config.pbtxt is complete; completing it would start a stub, and import torch, once more.
        "--disable-auto-complete-config",
        *(f"--{flag}={value}" for flag, value in flags.items()),
        *(f"--backend-config=python,{key}={value}" for key, value in backend.items()),
    )


def has_gpu() -> bool:
    """Whether there is an NVIDIA driver to ask."""
    return Path("/dev/nvidiactl").exists()


def visible_devices(settings: Settings, base: Mapping[str, str]) -> dict[str, str]:
    """``NVIDIA_VISIBLE_DEVICES`` as CUDA understands it.

    In a container the runtime has applied it already, and numbered the devices anew; a
    ``CUDA_VISIBLE_DEVICES`` of the user's own is left alone.
    """
    wanted = settings.nvidia_visible_devices.strip()
    if wanted == "all" or "CUDA_VISIBLE_DEVICES" in base or _in_container(base):
        return {}
    return {"CUDA_VISIBLE_DEVICES": "" if wanted in ("none", "void") else wanted}


def _in_container(base: Mapping[str, str]) -> bool:
    return "KUBERNETES_SERVICE_HOST" in base or any(mark.exists() for mark in CONTAINER_MARKS)
