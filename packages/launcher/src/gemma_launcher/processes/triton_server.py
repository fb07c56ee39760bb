"""Runs tritonserver from the ``nvidia-pytriton`` wheel: prerequisites, environment and command line.

The wheel contains a complete tritonserver. The package's Python API is not used.
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

from gemma_launcher.addresses import LOOPBACK
from gemma_launcher.errors import CommandError
from gemma_launcher.platforms import no_triton
from gemma_launcher.processes.triton_address import TritonAddress
from gemma_launcher.settings import LauncherSettings
from gemma_wire.tensors import MODEL

STUB_NAME = "triton_python_backend_stub"
EXIT_TIMEOUT_S = 3
"""How long Triton waits for running requests at shutdown; those of the gateway have ended by then."""

CHECK_TIMEOUT_S = 30.0
CONTAINER_MARKERS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_VERSION = re.compile(r"server_version\s*\|\s*(\S+)")
_MISSING_LIBRARY = re.compile(r"error while loading shared libraries: (\S+): cannot open")


@dataclass(frozen=True)
class TritonWheel:
    """The locations of the wheel's parts."""

    server: Path
    backend: Path
    stub: Path
    libraries: Path


def find_wheel() -> TritonWheel:
    """Finds the parts of the installed wheel.

    Raises:
        CommandError: it is not installed, or does not support this system or this Python version.
    """
    spec = find_spec("pytriton")  # does not import it
    if spec is None or spec.origin is None:
        raise CommandError(no_triton())
    package = Path(spec.origin).parent
    home = package / "tritonserver"
    stub = home / "python_backend_stubs" / _PYTHON / STUB_NAME
    if not stub.is_file():
        have = ", ".join(
            sorted(path.parent.name for path in home.glob(f"python_backend_stubs/*/{STUB_NAME}"))
        )
        raise CommandError(f"the nvidia-pytriton wheel has no stub for Python {_PYTHON}, only for {have}")
    return TritonWheel(
        home / "bin" / "tritonserver",
        home / "backends" / "python",
        stub,
        package.parent / "nvidia_pytriton.libs",
    )


def prepare_backend_folder(wheel: TritonWheel, folder: Path) -> None:
    """Creates ``backends/python`` and ``lib`` in the run's temporary folder.

    ``backends/python`` has links to the backend's files and an executable copy of the stub for this Python
    version. ``lib`` has a link to libpython only, so that ``LD_LIBRARY_PATH`` adds no other library.

    Raises:
        CommandError: the folder cannot be written.
    """
    backend, libraries = folder / "backends" / "python", folder / "lib"
    try:
        backend.mkdir(parents=True)
        libraries.mkdir()
        for part in wheel.backend.iterdir():
            (backend / part.name).symlink_to(part)
        shutil.copyfile(wheel.stub, backend / STUB_NAME)
        (backend / STUB_NAME).chmod(0o755)
        if libpython := find_libpython():
            (libraries / libpython.name).symlink_to(libpython)
    except OSError as error:
        reason = error.strerror or error
        raise CommandError(f"{folder} cannot be written: {reason}; set TMPDIR to another folder") from None


def find_libpython() -> Path | None:
    """``libpythonX.Y.so.1.0`` of this Python; ``None`` if only the dynamic loader can find it."""
    name = f"libpython{_PYTHON}.so.1.0"
    folders = [Path(sys.base_prefix) / "lib"]
    if library_folder := sysconfig.get_config_var("LIBDIR"):
        triplet = sysconfig.get_config_var("MULTIARCH") or ""
        folders = [Path(library_folder), Path(library_folder) / triplet, *folders]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def server_environment(base: Mapping[str, str], wheel: TritonWheel, folder: Path) -> dict[str, str]:
    """The environment of Triton and its stub.

    The stub embeds Python, which derives its packages from ``python3`` on PATH; this virtual environment is
    therefore first on PATH. Triton returns freed blocks of 128 KiB or more, such as the tensors of requests
    with images, to the system at once; by default its heap fragments. The stub sets its own allocator.
    """
    libraries = [str(folder / "lib"), str(wheel.libraries), base.get("LD_LIBRARY_PATH", "")]
    path = [str(Path(sys.executable).parent), base.get("PATH", os.defpath)]
    return {
        "MALLOC_MMAP_THRESHOLD_": "131072",
        **base,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "PATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
    }


def check_server(wheel: TritonWheel, folder: Path, env: Mapping[str, str]) -> str:
    """Runs the stub and the server briefly, to check that the system has what they need.

    Args:
        wheel: what to run.
        folder: as prepared by ``prepare_backend_folder``.
        env: as returned by ``server_environment``.

    Returns:
        The server's version, such as 2.51.0.

    Raises:
        CommandError: one of them cannot run.
    """
    if shutil.which("bash", path=env["PATH"]) is None:
        raise CommandError("Triton starts its Python stub through bash, which is not installed")
    check_stub(folder, env)
    # There is no --version, but the version is printed before the server fails for lack of a repository.
    disabled = ("--allow-http=false", "--allow-grpc=false", "--allow-metrics=false")
    output = _run(wheel.server, env, f"--model-repository={folder / 'missing'}", *disabled)
    found = _VERSION.search(output)
    return found[1] if found else "unknown"


def check_stub(folder: Path, env: Mapping[str, str]) -> None:
    """Runs the stub briefly; it needs libpython.

    Raises:
        CommandError: it cannot run.
    """
    _run(folder / "backends" / "python" / STUB_NAME, env)


def check_numpy() -> None:
    """Checks for numpy 1, which the stub is built against: with numpy 2 every STRING tensor is corrupt.

    Raises:
        CommandError: another numpy is installed.
    """
    if not version("numpy").startswith("1."):
        raise CommandError(
            f"numpy {version('numpy')} is installed, and Triton's Python stub needs numpy 1; "
            "run `poetry install`, or `pip install 'numpy<2'`"
        )


def _run(program: Path, env: Mapping[str, str], *arguments: str) -> str:
    """The program's output; its exit code does not matter if the dynamic loader could start it."""
    try:
        run = subprocess.run(
            [program, *arguments],
            env=env,
            capture_output=True,
            text=True,
            timeout=CHECK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{program} cannot be run: {_reason(error)}") from None
    if run.returncode in (126, 127) or run.returncode < 0:
        raise CommandError(_cannot_load(program, run.stderr))
    return run.stdout + run.stderr


def _reason(error: OSError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, PermissionError):
        return "permission denied; if its folder is mounted noexec, set TMPDIR to one that is not"
    return str(error)


def _cannot_load(program: Path, stderr: str) -> str:
    missing = _MISSING_LIBRARY.search(stderr)
    if missing and missing[1].startswith("libpython"):
        return (
            f"{missing[1]} is missing, which Triton's Python backend needs and this Python does not include: "
            f"install the package libpython{_PYTHON} (`sudo apt-get install libpython{_PYTHON}`)"
        )
    reason = stderr.strip().splitlines()[-1] if stderr.strip() else "there was no output"
    return f"{program.name} of the nvidia-pytriton wheel does not run on this system: {reason}"


def server_command(
    settings: LauncherSettings,
    address: TritonAddress,
    wheel: TritonWheel,
    repository: Path,
    folder: Path,
    name: str,
) -> tuple[str, ...]:
    """The command line of the server.

    Args:
        settings: metrics port, log level, start limit.
        address: where it listens.
        wheel: the server.
        repository: the model repository.
        folder: as prepared by ``prepare_backend_folder``.
        name: prefix of its shared memory files.
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
        # How long the stub may take to import the model; torch may need more than the default 30 s.
        "stub-timeout-seconds": settings.gemma_triton_start_limit,
    }
    load_model = (f"--load-model={MODEL}",) if settings.gemma_triton_model_control else ()
    return (
        str(wheel.server),
        *load_model,
        # config.pbtxt is complete; auto-completion would start another stub, which imports torch.
        "--disable-auto-complete-config",
        *(f"--{flag}={value}" for flag, value in flags.items()),
        *(f"--backend-config=python,{key}={value}" for key, value in backend.items()),
    )


def has_gpu() -> bool:
    """Whether there is an NVIDIA driver."""
    return Path("/dev/nvidiactl").exists()


def visible_devices(settings: LauncherSettings, base: Mapping[str, str]) -> dict[str, str]:
    """``NVIDIA_VISIBLE_DEVICES`` translated to ``CUDA_VISIBLE_DEVICES``, unless the user has set the latter.

    In a container, the runtime has already applied it and renumbered the devices.
    """
    wanted = settings.nvidia_visible_devices.strip()
    if wanted == "all" or "CUDA_VISIBLE_DEVICES" in base or _in_container(base):
        return {}
    return {"CUDA_VISIBLE_DEVICES": "" if wanted in ("none", "void") else wanted}


def _in_container(base: Mapping[str, str]) -> bool:
    return "KUBERNETES_SERVICE_HOST" in base or any(marker.exists() for marker in CONTAINER_MARKERS)
