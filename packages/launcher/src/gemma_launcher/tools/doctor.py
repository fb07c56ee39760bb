"""``gemma-triton doctor``: checks everything that serving needs, and says how to fix what is wrong."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from gemma_launcher.byte_units import format_bytes
from gemma_launcher.checkpoints import gguf, hub, resolver
from gemma_launcher.console import paint, wants_colour
from gemma_launcher.errors import CommandError
from gemma_launcher.paths import (
    PLAYGROUND_NOT_INSTALLED,
    find_model_repository,
    is_playground_installed,
    project_root,
)
from gemma_launcher.processes import ports, preflight, triton_server
from gemma_launcher.processes.file_limits import FileLimits
from gemma_launcher.settings import PREFIXES, LauncherSettings
from gemma_wire.gguf import split_files
from gemma_wire.gguf_sources import find_mmproj, split_hub_id
from gemma_wire.setting_names import unknown_settings

Status = Literal["ok", "warn", "fail"]
_COLOURS: dict[Status, str] = {"ok": "32", "warn": "33", "fail": "31"}

PYTHON_VERSIONS: Final = ((3, 11), (3, 12))
MIN_SHARED_MEMORY = 256e6  # bytes; requests and responses pass through it, including images
TORCH_IMPORT_LIMIT_S = 120.0
MIN_DISK_SPACE = 1e9  # bytes on disk, for logs, caches and the tiny checkpoint
MIN_DRIVERS: Final = {"12": 525, "13": 580}
"""The oldest supported driver per CUDA major version (NVIDIA's table of minor version compatibility)."""


@dataclass(frozen=True)
class CheckResult:
    """One line of the report; a failure or warning says what to do."""

    status: Status
    subject: str
    text: str

    def render(self, colour: bool) -> str:
        """``ok    python         3.11.7``."""
        word = f"{self.status:<4}"
        return f"{paint(word, _COLOURS[self.status]) if colour else word}  {self.subject:<13}  {self.text}"


def run(settings: LauncherSettings, options: Namespace) -> int:
    """Prints the results one by one, or as JSON; returns 1 when a check fails, else 0."""
    if options.json:
        return _print_json(list(run_checks(settings)))
    failed, colour = 0, wants_colour(1)
    for result in run_checks(settings):
        print(result.render(colour), flush=True)
        failed += result.status == "fail"
    print(f"\n{failed} problem(s) to fix before serving" if failed else "\nready to serve", flush=True)
    return 1 if failed else 0


def _print_json(results: Sequence[CheckResult]) -> int:
    ready = all(result.status != "fail" for result in results)
    report = {"ready": ready, "checks": [asdict(result) for result in results]}
    print(json.dumps(report, indent=2, ensure_ascii=False))
    return 0 if ready else 1


def run_checks(settings: LauncherSettings) -> Iterator[CheckResult]:
    """Runs all checks. Most take less than a second; the import of torch takes some seconds."""
    yield from _environment()
    yield _python()
    yield from _packages(settings)
    if settings.embedded:
        yield from _triton()
        yield _torch()
        yield _check("repository", lambda: str(find_model_repository(settings)))
    yield _open_files(settings)
    yield from _ports(preflight.without_missing_playground(settings))
    yield from _gpu()
    if settings.embedded:
        yield _shared_memory()
    yield from _disk()
    if settings.embedded:
        yield _check("model", lambda: _model(settings))
    yield _memory(settings)


def _check(subject: str, check: Callable[[], str]) -> CheckResult:
    """The result of ``check``: what it returns, or a failure with the message of its ``CommandError``."""
    try:
        return CheckResult("ok", subject, check())
    except CommandError as error:
        return CheckResult("fail", subject, str(error))


def _environment() -> Iterator[CheckResult]:
    for sentence in unknown_settings(os.environ, PREFIXES):
        yield CheckResult("warn", "environment", sentence)


def _python() -> CheckResult:
    text = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] in PYTHON_VERSIONS:
        return CheckResult("ok", "python", text)
    return CheckResult("fail", "python", f"{text}; use 3.11 or 3.12")


def _packages(settings: LauncherSettings) -> Iterator[CheckResult]:
    for module in ("gemma_gateway", "gemma_model") if settings.embedded else ("gemma_gateway",):
        if find_spec(module) is None:
            yield CheckResult("fail", "package", f"{module} is not installed; run `poetry install`")
    if settings.gemma_playground and not is_playground_installed():
        yield CheckResult("warn", "package", PLAYGROUND_NOT_INSTALLED)


def _triton() -> Iterator[CheckResult]:
    """numpy, the wheel, libpython (by running the stub) and tritonserver (by running it)."""
    yield _check("numpy", _numpy)
    with tempfile.TemporaryDirectory(prefix="gemma-doctor-") as name:
        folder = Path(name)
        try:
            wheel = triton_server.find_wheel()
            triton_server.prepare_backend_folder(wheel, folder)
        except CommandError as error:
            yield CheckResult("fail", "wheel", str(error))
            return
        env = triton_server.server_environment(os.environ, wheel, folder)
        yield CheckResult("ok", "wheel", f"nvidia-pytriton {_version('nvidia-pytriton')}")
        yield _check("libpython", lambda: _libpython(folder, env))
        yield _check("tritonserver", lambda: f"{triton_server.check_server(wheel, folder, env)} runs")


def _torch() -> CheckResult:
    """Imports torch in a process of its own, because a damaged installation may crash."""
    command = [sys.executable, "-c", "import torch; print(torch.__version__)"]
    advice = "install the packages again: remove .venv, then run `make install`"
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=TORCH_IMPORT_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return CheckResult(
            "warn",
            "torch",
            f"importing it takes longer than {TORCH_IMPORT_LIMIT_S:.0f} s; is the machine busy?",
        )
    if run.returncode < 0:
        killed = signal.Signals(-run.returncode).name
        return CheckResult("fail", "torch", f"importing it was killed by {killed}; {advice}")
    if run.returncode:
        reason = next(reversed(run.stderr.strip().splitlines()), "no output")
        return CheckResult("fail", "torch", f"it cannot be imported ({reason}); {advice}")
    return CheckResult("ok", "torch", run.stdout.strip())


def _numpy() -> str:
    triton_server.check_numpy()
    return _version("numpy")


def _libpython(folder: Path, env: dict[str, str]) -> str:
    triton_server.check_stub(folder, env)
    return str(triton_server.find_libpython() or "found by the dynamic loader")


def _ports(settings: LauncherSettings) -> Iterator[CheckResult]:
    for binding in preflight.required_ports(settings):
        where = f"{binding.host}:{binding.port} for {binding.what}"
        reason = ports.bind_error(binding.host, binding.port)
        owner = ports.find_port_owner(binding.port) if reason else None
        if owner and owner.launcher:
            text = f"{where} is used by a running Gemma-Triton (process {owner.launcher})"
            yield CheckResult("warn", "port", text)
        elif owner and owner.is_orphan:
            text = (
                f"{where} is used by the processes of a killed Gemma-Triton ({owner.run}); `serve` ends them"
            )
            yield CheckResult("warn", "port", text)
        elif reason:
            yield CheckResult("fail", "port", f"{where}: {reason}; choose another with {binding.change}")
        else:
            yield CheckResult("ok", "port", f"{where} is free")


def _open_files(settings: LauncherSettings) -> CheckResult:
    limits = FileLimits.read(settings.api_max_connections)
    if limits.warning:
        return CheckResult("warn", "open files", limits.warning)
    limit = "no limit" if limits.limit is None else f"a limit of {limits.limit}"
    return CheckResult("ok", "open files", f"{limit}: {limits.connections} client connections")


def _gpu() -> Iterator[CheckResult]:
    """The GPUs and the driver, according to nvidia-smi."""
    query = "--query-gpu=name,memory.total,driver_version"
    try:
        command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    except FileNotFoundError:
        yield CheckResult(
            "warn",
            "gpu",
            "nvidia-smi was not found, so there is no NVIDIA driver; the model will run on the CPU",
        )
        return
    except (OSError, subprocess.TimeoutExpired) as error:
        yield CheckResult("warn", "gpu", f"nvidia-smi does not respond ({error}); check the driver")
        return
    if run.returncode != 0 or not run.stdout.strip():
        reason = " ".join((run.stdout + run.stderr).split()) or f"exit code {run.returncode}"
        yield CheckResult("warn", "gpu", f"nvidia-smi finds no GPU ({reason}); the model will run on the CPU")
        return
    yield from map(_card, run.stdout.strip().splitlines())


def _card(row: str) -> CheckResult:
    """One GPU, given its row of nvidia-smi's output, and whether the driver is new enough for torch."""
    name, mebibytes, driver = (cell.strip() for cell in row.split(","))
    memory = f", {format_bytes(int(mebibytes) * 2**20)}" if mebibytes.isdecimal() else ""
    text = f"{name}{memory}, driver {driver}"
    cuda = _torch_cuda()
    oldest, major = MIN_DRIVERS.get(cuda, 0), driver.split(".")[0]
    if major.isdecimal() and int(major) < oldest:
        return CheckResult("warn", "gpu", f"{text}; torch's CUDA {cuda} needs driver {oldest}: update it")
    return CheckResult("ok", "gpu", text)


def _torch_cuda() -> str:
    """The major version of the CUDA runtime that torch depends on; empty if there is none."""
    for package in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"):
        if found := _version(package):
            return found.split(".")[0]
    return ""


def _shared_memory() -> CheckResult:
    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError:
        return CheckResult(
            "fail", "shared memory", "there is no /dev/shm, which Triton's Python backend needs"
        )
    if size < MIN_SHARED_MEMORY:
        advice = "large requests may fail; in Docker start the container with --shm-size=1g"
        return CheckResult("warn", "shared memory", f"{format_bytes(size)} at /dev/shm: {advice}")
    return CheckResult("ok", "shared memory", f"{format_bytes(size)} at /dev/shm")


def _disk() -> Iterator[CheckResult]:
    for folder in dict.fromkeys((project_root() or Path.home(), Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        if free < MIN_DISK_SPACE:
            yield CheckResult("warn", "disk", f"{format_bytes(free)} free at {folder}; free some space")
        else:
            yield CheckResult("ok", "disk", f"{format_bytes(free)} free at {folder}")


def _model(settings: LauncherSettings) -> str:
    """Where the checkpoint is, or that it can be downloaded."""
    name, folder = settings.model_name, resolver.local_checkpoint(settings)
    if folder is not None:
        size = weights_size(resolver.checkpoint_folder(folder, os.environ))
        return f"{folder}, {format_bytes(size)}"
    if name in ("", resolver.TINY_CHECKPOINT):
        note = "" if name else f"; {resolver.NO_DEMO_NOTE}"
        return f"the tiny checkpoint with random weights{note}"
    hub.check_repo_id(split_hub_id(name)[0])
    if cached := hub.cached_checkpoint(name):
        return f"{name} is in the cache, {format_bytes(weights_size(cached))}"
    hub.check_access(split_hub_id(name)[0], settings.token)
    return f"{name} will be downloaded; access is granted"


def _memory(settings: LauncherSettings) -> CheckResult:
    import psutil  # noqa: PLC0415

    free = psutil.virtual_memory().available
    folder = resolver.local_checkpoint(settings)
    needed = weights_size(folder) if folder else 0
    if needed > free:
        advice = (
            f"the checkpoint alone is {format_bytes(needed)}; close other programs, or choose a smaller one"
        )
        return CheckResult("warn", "memory", f"{format_bytes(free)} available: {advice}")
    return CheckResult("ok", "memory", f"{format_bytes(free)} available")


def weights_size(path: Path) -> int:
    """The size of the weights of a checkpoint, a folder or a GGUF file, in bytes."""
    if not path.is_dir():
        encoders = find_mmproj(path)
        parts = [*split_files(path), *([encoders] if encoders else [])]
        return sum(part.stat().st_size for part in parts if part.is_file())
    files = gguf.weight_files(path) or [*path.glob("*.safetensors"), *path.glob("*.gguf")]
    return sum(file.stat().st_size for file in files)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
