"""``gemma-triton doctor``: looks at everything that serving needs, and says what to do about the rest."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from gemma_launcher import checkpoint, hub, models, ports, preflight, triton
from gemma_launcher.console import paint, wants_colour
from gemma_launcher.errors import CannotStart
from gemma_launcher.hub import in_bytes
from gemma_launcher.open_files import OpenFiles
from gemma_launcher.places import NO_PLAYGROUND, has_playground, model_repository, root
from gemma_launcher.settings import Settings

Verdict = Literal["ok", "warn", "fail"]
_COLOURS: dict[Verdict, str] = {"ok": "32", "warn": "33", "fail": "31"}

PYTHONS: Final = ((3, 11), (3, 12))
SHARED_MEMORY = 256e6  # bytes; requests and answers pass through it, pictures too
TORCH_S = 120.0
ROOM = 1e9  # bytes on disk, for logs, caches and the tiny checkpoint
DRIVERS: Final = {"12": 525, "13": 580}
"""The oldest driver for each major version of CUDA (NVIDIA's table of minor version compatibility)."""


@dataclass(frozen=True)
class Finding:
    """One line of the report; what is not ok says what to do."""

    verdict: Verdict
    subject: str
    text: str

    def render(self, colour: bool) -> str:
        """``ok    python         3.11.7``."""
        word = f"{self.verdict:<4}"
        return f"{paint(word, _COLOURS[self.verdict]) if colour else word}  {self.subject:<13}  {self.text}"


def run(settings: Settings) -> int:
    """Prints the findings as they come; 1 when something fails that serving needs, else 0."""
    failed, colour = 0, wants_colour(1)
    for finding in examine(settings):
        print(finding.render(colour), flush=True)
        failed += finding.verdict == "fail"
    print(f"\n{failed} to put right before serving" if failed else "\nready to serve", flush=True)
    return 1 if failed else 0


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, one by one. Nothing here waits longer than some seconds."""
    yield _python()
    yield from _packages(settings)
    if settings.embedded:
        yield from _triton()
        yield _torch()
        yield _tried("repository", lambda: str(model_repository(settings)))
    yield _open_files(settings)
    yield from _ports(preflight.without_what_is_missing(settings))
    yield from _gpu()
    if settings.embedded:
        yield _shared_memory()
    yield from _disk()
    if settings.embedded:
        yield _tried("model", lambda: _model(settings))
    yield _memory(settings)


def _tried(subject: str, look: Callable[[], str]) -> Finding:
    """What ``look`` says is ok; what it raises is a failure and its sentence."""
    try:
        return Finding("ok", subject, look())
    except CannotStart as error:
        return Finding("fail", subject, str(error))


def _python() -> Finding:
    text = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] in PYTHONS:
        return Finding("ok", "python", text)
    return Finding("fail", "python", f"{text}; use 3.11 or 3.12")


def _packages(settings: Settings) -> Iterator[Finding]:
    for module in ("gemma_gateway", "gemma_model") if settings.embedded else ("gemma_gateway",):
        if find_spec(module) is None:
            yield Finding("fail", "package", f"{module} is not installed; run `poetry install`")
    if settings.gemma_playground and not has_playground():
        yield Finding("warn", "package", NO_PLAYGROUND)


def _triton() -> Iterator[Finding]:
    """numpy, the wheel, libpython (by running the stub) and the server (by running it)."""
    yield _tried("numpy", _numpy)
    with tempfile.TemporaryDirectory(prefix="gemma-doctor-") as name:
        folder = Path(name)
        try:
            wheel = triton.find_wheel()
            triton.prepare(wheel, folder)
        except CannotStart as error:
            yield Finding("fail", "wheel", str(error))
            return
        env = triton.environment(os.environ, wheel, folder)
        yield Finding("ok", "wheel", f"nvidia-pytriton {_version('nvidia-pytriton')}")
        yield _tried("libpython", lambda: _libpython(folder, env))
        yield _tried("tritonserver", lambda: f"{triton.check(wheel, folder, env)} runs")


def _torch() -> Finding:
    """Imports torch in a process of its own: a damaged installation crashes instead of raising."""
    command = [sys.executable, "-c", "import torch; print(torch.__version__)"]
    anew = "install the packages anew: remove .venv, then `make install`"
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=TORCH_S, check=False)
    except subprocess.TimeoutExpired:
        return Finding("warn", "torch", f"its import takes longer than {TORCH_S:.0f} s; is the machine busy?")
    if said.returncode < 0:
        killed = signal.Signals(-said.returncode).name
        return Finding("fail", "torch", f"its import is killed by {killed}; {anew}")
    if said.returncode:
        reason = next(reversed(said.stderr.strip().splitlines()), "it said nothing")
        return Finding("fail", "torch", f"it cannot be imported ({reason}); {anew}")
    return Finding("ok", "torch", said.stdout.strip())


def _numpy() -> str:
    triton.check_numpy()
    return _version("numpy")


def _libpython(folder: Path, env: dict[str, str]) -> str:
    triton.check_stub(folder, env)
    return str(triton.find_libpython() or "the system's own")


def _ports(settings: Settings) -> Iterator[Finding]:
    for listener in preflight.listeners(settings):
        where = f"{listener.host}:{listener.port} for {listener.what}"
        trouble = ports.why_not(listener.host, listener.port)
        found = ports.holder(listener.port) if trouble else None
        if found and found.launcher:
            text = f"{where} is in use by the Gemma-Triton that runs already (process {found.launcher})"
            yield Finding("warn", "port", text)
        elif found and found.is_orphan:
            text = f"{where} is held by what a killed Gemma-Triton left behind ({found.run}); a start ends it"
            yield Finding("warn", "port", text)
        elif trouble:
            yield Finding("fail", "port", f"{where}: {trouble}; choose another with {listener.change}")
        else:
            yield Finding("ok", "port", f"{where} is free")


def _open_files(settings: Settings) -> Finding:
    found = OpenFiles.read(settings.api_max_connections)
    if found.warning:
        return Finding("warn", "open files", found.warning)
    limit = "no limit" if found.limit is None else f"a limit of {found.limit}"
    return Finding("ok", "open files", f"{limit}: {found.connections} connections of clients may be open")


def _gpu() -> Iterator[Finding]:
    """The GPUs and the driver, as nvidia-smi sees them."""
    question = "--query-gpu=name,memory.total,driver_version"
    try:
        command = ["nvidia-smi", question, "--format=csv,noheader,nounits"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    except FileNotFoundError:
        yield Finding(
            "warn", "gpu", "there is no nvidia-smi, so no NVIDIA driver; the model will run on the CPU"
        )
        return
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("warn", "gpu", f"nvidia-smi does not answer ({error}); look at the driver")
        return
    if said.returncode != 0 or not said.stdout.strip():
        reason = " ".join((said.stdout + said.stderr).split()) or f"exit code {said.returncode}"
        yield Finding("warn", "gpu", f"nvidia-smi sees no GPU ({reason}); the model will run on the CPU")
        return
    yield from map(_card, said.stdout.strip().splitlines())


def _card(row: str) -> Finding:
    """One GPU: its row of nvidia-smi's answer, and whether the driver is new enough for torch."""
    name, mebibytes, driver = (cell.strip() for cell in row.split(","))
    memory = f", {in_bytes(int(mebibytes) * 2**20)}" if mebibytes.isdecimal() else ""
    text = f"{name}{memory}, driver {driver}"
    cuda = _torch_cuda()
    oldest, major = DRIVERS.get(cuda, 0), driver.split(".")[0]
    if major.isdecimal() and int(major) < oldest:
        return Finding("warn", "gpu", f"{text}; torch's CUDA {cuda} needs driver {oldest}: update it")
    return Finding("ok", "gpu", text)


def _torch_cuda() -> str:
    """The major version of the CUDA runtime that torch brings; empty when it brings none."""
    for package in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"):
        if found := _version(package):
            return found.split(".")[0]
    return ""


def _shared_memory() -> Finding:
    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError:
        return Finding("fail", "shared memory", "there is no /dev/shm, which Triton's Python backend needs")
    if size < SHARED_MEMORY:
        advice = "large requests may fail; in Docker start the container with --shm-size=1g"
        return Finding("warn", "shared memory", f"{in_bytes(size)} at /dev/shm: {advice}")
    return Finding("ok", "shared memory", f"{in_bytes(size)} at /dev/shm")


def _disk() -> Iterator[Finding]:
    for folder in dict.fromkeys((root(), Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        if free < ROOM:
            yield Finding("warn", "disk", f"{in_bytes(free)} free at {folder}; make room")
        else:
            yield Finding("ok", "disk", f"{in_bytes(free)} free at {folder}")


def _model(settings: Settings) -> str:
    """Where the checkpoint is, or that the hub will give it."""
    name, folder = settings.model_name, models.on_this_machine(settings)
    if folder is not None:
        checkpoint.check(folder)
        return f"{folder}, {in_bytes(weight(folder))}"
    if name in ("", models.TINY.name):
        return "the tiny checkpoint with random weights"
    hub.check_id(name)
    if there := hub.cached(name):
        return f"{name} is in the cache, {in_bytes(weight(there))}"
    hub.look_up(name, settings.token)
    return f"{name} will be downloaded; the hub grants it"


def _memory(settings: Settings) -> Finding:
    import psutil  # noqa: PLC0415

    free = psutil.virtual_memory().available
    folder = models.on_this_machine(settings)
    needed = weight(folder) if folder else 0
    if needed > free:
        advice = f"the checkpoint alone is {in_bytes(needed)}; end other programs, or choose a smaller one"
        return Finding("warn", "memory", f"{in_bytes(free)} available: {advice}")
    return Finding("ok", "memory", f"{in_bytes(free)} available")


def weight(folder: Path) -> int:
    """The bytes of the weights in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
