"""Compiles the C++ kernels at first use, keeps the library for the next start, and loads it.

They run on x86-64 with AVX2 or AVX512, and on 64-bit ARM with Linux. Elsewhere, or without a C++
compiler, PyTorch's own operations are used instead.
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

from gemma_model.cpu.instruction_set import InstructionSet, instruction_set

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cpp")  # includes the headers in this folder
FLAGS = ("-O3", "-std=c++20", "-fPIC", "-shared", "-fopenmp", "-w")
EXTRA_FLAGS = "CPU_KERNEL_FLAGS"
"""An environment variable with more flags for the compiler; ``make sanitize`` sets it."""
TIMEOUT = 1800
"""Seconds for the compiler. A small ARM board needs minutes, and so do sanitizers on a busy machine."""
FOLDER = Path("~/.cache/gemma-triton/kernels").expanduser()
"""Where compiled kernels are kept."""

LANES = 16
"""Floats in the widest vector. The kernels read complete vectors, so widths must be multiples of it."""

NO_SPARSITY = float("nan")
"""The ``sparsity_zscore`` of a layer without activation sparsity."""

ops = torch.ops.gemma


@cache
def load() -> bool:
    """Make ``ops`` usable. Returns whether that was possible; the reason is logged once if not."""
    target = instruction_set()
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if target is None:
        capability = torch.backends.cpu.get_cpu_capability()
        log.info(
            "CPU kernels: none for %s (%s); PyTorch's own operations are used", platform.machine(), capability
        )
        return False
    if compiler is None:
        log.warning("CPU kernels: no C++ compiler (g++ or clang++), so decoding is slower than it could be")
        return False
    try:
        torch.ops.load_library(_build(compiler, target))  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        log.warning("CPU kernels: not usable, so decoding is slower than it could be: %s", _reason(error))
        return False
    return True


def is_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no element is infinite or NaN.

    The C++ kernels are used if they are loaded and the tensor is on the CPU; PyTorch takes ten times as long.

    Args:
        tensors: of any shapes and floating-point types, on one device.
    """
    extremes = []
    for x in tensors:
        if _suits_kernel(x):
            if not ops.is_finite(x):
                return False
        elif x.numel():
            extremes.append(torch.stack(torch.aminmax(x)))  # both are NaN if an element is
    return not extremes or not torch.cat(extremes).isfinite().logical_not().any().tolist()


def _suits_kernel(x: Tensor) -> bool:
    known = x.dtype in (torch.float32, torch.bfloat16) and x.device.type == "cpu"
    return known and hasattr(ops, "is_finite")


def _build(compiler: str, target: InstructionSet) -> Path:
    """The library; compiled unless it exists. Two processes may do so at the same time."""
    flags = (*FLAGS, *target.flags, *os.environ.get(EXTRA_FLAGS, "").split())
    library = FOLDER / f"kernels-{_digest(compiler, flags)}.so"
    if library.is_file():
        return library
    log.info("CPU kernels: compiling with %s for %s, once, about a minute", compiler, target.name)
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
    """Of all that the library depends on; with ``-march=native`` on the processor as well."""
    processor = platform.machine() + _processor_flags()
    parts = (*_sources(), torch.__version__, compiler, *flags, processor)
    return hashlib.sha256("\0".join((*parts, sysconfig.get_platform())).encode()).hexdigest()[:16]


def _sources() -> list[str]:
    """The contents of the translation unit and of all headers."""
    folder = SOURCE.parent
    return [path.read_text(encoding="utf-8") for path in (SOURCE, *sorted(folder.rglob("*.h")))]


def _processor_flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _reason(error: Exception) -> str:
    """The last line of the compiler or the linker, or the error's message.

    GCC's driver adds a line, "collect2: error: ld returned 1 exit status", to the linker's own.
    """
    written = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    lines = (written or str(error)).strip().splitlines()
    return next((line for line in reversed(lines) if not line.startswith("collect2:")), lines[-1])
