"""Whether other processes use this machine, which would make measurements invalid."""

import os
import platform
from pathlib import Path
from typing import Any

import psutil

LOOK_S = 1.0


def busy() -> float:
    """Share of one core that all programs together used during the last second, while nothing is measured."""
    share: float = psutil.cpu_percent(interval=LOOK_S) / 100 * (os.cpu_count() or 1)
    return share


def about() -> dict[str, Any]:
    """What a figure is worth nothing without."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model
        )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
    }
