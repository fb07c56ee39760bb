"""The operations of ``kernels.cpp``, compiled at first use and kept for the next start.

Without a C++ compiler, or on a processor that they do not suit, everything runs on PyTorch's own operations.
"""

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++20", "-fPIC", "-shared", "-fopenmp", "-w")
TIMEOUT = 600  # seconds
FOLDER = Path("~/.cache/gemma-triton/kernels").expanduser()
"""Where compiled kernels are kept."""

LANES = 16
"""Floats in the widest vector; the kernels read whole ones, so widths must be multiples of it."""

NEVER = float("nan")
"""The number of standard deviations of a layer that shuts no gates."""

ops = torch.ops.gemma


@cache
def load() -> bool:
    """Make ``ops`` usable; whether that could be done. What stands in the way is logged, once."""
    capability = torch.backends.cpu.get_cpu_capability()
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if capability not in ("AVX512", "AVX2"):
        log.info("CPU kernels: none for %s; PyTorch's own operations are used", capability)
        return False
    if compiler is None:
        log.warning("CPU kernels: no C++ compiler (g++ or clang++), so decoding is slower than it could be")
        return False
    try:
        torch.ops.load_library(_built(compiler, capability))  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        log.warning("CPU kernels: not usable, so decoding is slower than it could be: %s", _reason(error))
        return False
    return True


def is_finite(tensors: Iterable[Tensor], compiled: bool = False) -> bool:
    """Whether no element is infinite or NaN.

    Args:
        tensors: of any shapes, fp32 or bf16; on one device.
        compiled: look by the CPU's kernels, which must be loaded; PyTorch takes ten times as long.
    """
    if compiled:
        return all(ops.is_finite(x) for x in tensors)
    ends = [torch.stack(torch.aminmax(x)) for x in tensors if x.numel()]  # both are NaN where an element is
    return not ends or not torch.cat(ends).isfinite().logical_not().any().tolist()


def _built(compiler: str, capability: str) -> Path:
    """The library, compiled unless it is there; two processes may do so at once."""
    flags = (*FLAGS, f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}")
    library = FOLDER / f"kernels-{_digest(compiler, flags)}.so"
    if library.is_file():
        return library
    log.info("CPU kernels: compiling with %s, once, about half a minute", compiler)
    started = time.monotonic()
    FOLDER.mkdir(parents=True, exist_ok=True)
    home = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        made = Path(scratch) / library.name
        paths = (f"-I{home / 'include'}", str(SOURCE), "-o", str(made), f"-L{home / 'lib'}")
        subprocess.run(
            (compiler, *flags, *paths, "-ltorch_cpu", "-lc10"),
            check=True,
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT,
        )
        made.replace(library)
    log.info("CPU kernels: compiled in %.0f s into %s", time.monotonic() - started, library)
    return library


def _digest(compiler: str, flags: tuple[str, ...]) -> str:
    """Of all that the library depends on; ``-march=native`` makes the processor part of it."""
    processor = platform.machine() + _processor_flags()
    parts = (SOURCE.read_text(encoding="utf-8"), torch.__version__, compiler, *flags, processor)
    return hashlib.sha256("\0".join((*parts, sysconfig.get_platform())).encode()).hexdigest()[:16]


def _processor_flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _reason(error: Exception) -> str:
    """The compiler's last words, or the error's own."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    return (said or str(error)).strip().splitlines()[-1]
