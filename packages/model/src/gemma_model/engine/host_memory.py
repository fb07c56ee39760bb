"""How much of the host's memory this process may still take.

A control group limits a container or a service; a limit may be set at any group above the process's own.
Pages of files count as used there, although the system drops them when memory is needed. The files are
described in Linux's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

MEMINFO = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
CGROUP = Path("/sys/fs/cgroup")


class _Hierarchy(NamedTuple):
    """Where a version of control groups has its files.

    Args:
        folder: of the top group, relative to ``CGROUP``.
        limit: the file with the limit in bytes, or ``max``.
        used: the file with the bytes in use.
        files: the keys of ``memory.stat`` for pages of files that can be dropped.
    """

    folder: str
    limit: str
    used: str
    files: tuple[str, ...]


_V1: Final = _Hierarchy(
    "memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)
_V2: Final = _Hierarchy("", "memory.max", "memory.current", ("inactive_file", "active_file"))


def free_host_memory() -> int | None:
    """Bytes: of the machine, or of a control group if that is less; ``None`` if unknown."""
    return min([*_free_in_machine(), *_free_in_groups()], default=None)


def _free_in_machine() -> Iterator[int]:
    yield from (kib * 1024 for name, kib in _numbers(MEMINFO) if name == "MemAvailable:")


def _free_in_groups() -> Iterator[int]:
    """Of each group with a limit, from the process's own to the top."""
    for hierarchy, path in _own_groups():
        top = CGROUP / hierarchy.folder
        own = top / path.lstrip("/")
        # A container may see its own group as the top one, and still be told the path outside of it.
        for folder in (own, *own.parents):
            if folder.is_relative_to(top):
                yield from _free_in_group(folder, hierarchy)


def _own_groups() -> Iterator[tuple[_Hierarchy, str]]:
    """The groups of the process that may limit its memory, with their paths."""
    for line in _lines(OWN_GROUPS):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            yield _V2, path
        elif "memory" in controllers.split(","):
            yield _V1, path


def _free_in_group(folder: Path, hierarchy: _Hierarchy) -> Iterator[int]:
    limit, used = (_lines(folder / name) for name in (hierarchy.limit, hierarchy.used))
    if limit and used and limit[0].isdigit() and used[0].isdigit():
        stat = dict(_numbers(folder / "memory.stat"))
        yield max(0, int(limit[0]) - int(used[0]) + sum(stat.get(name, 0) for name in hierarchy.files))


def _numbers(file: Path) -> Iterator[tuple[str, int]]:
    """The lines of a file that are a name and a number."""
    for line in _lines(file):
        match line.split():
            case [name, number, *_] if number.isdigit():
                yield name, int(number)


def _lines(file: Path) -> list[str]:
    """Of a file; none if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
