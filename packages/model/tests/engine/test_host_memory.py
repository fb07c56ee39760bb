from pathlib import Path

import pytest

from gemma_model.engine import host_memory
from gemma_model.engine.host_memory import free_host_memory

FREE = 10_000 * 1024
"""Bytes of the machine."""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without limits, in files."""
    (tmp_path / "meminfo").write_text("MemTotal: 20000 kB\nMemAvailable: 10000 kB\nHugePages_Total: 0\n")
    (tmp_path / "fs").mkdir()
    monkeypatch.setattr(host_memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(host_memory, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(host_memory, "CGROUP", tmp_path / "fs")
    return tmp_path


def write_v2(folder: Path, limit: str, used: int, files: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\nfile {files + 7}\ninactive_file {files}\nactive_file 0\n")


def write_v1(folder: Path, limit: int, used: int, files: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"inactive_file 1\ntotal_inactive_file 0\ntotal_active_file {files}\n"
    )


def test_a_machine_without_control_groups(machine: Path) -> None:
    assert free_host_memory() == FREE


def test_nothing_is_known_without_the_files_of_linux(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert free_host_memory() is None


def test_a_container_of_version_2_sees_its_limit_at_the_top(machine: Path) -> None:
    (machine / "cgroup").write_text("0::/\n")
    write_v2(machine / "fs", "3000", 1000)
    assert free_host_memory() == 2000


def test_pages_of_files_can_be_dropped(machine: Path) -> None:
    """Loading a checkpoint fills the group with them."""
    (machine / "cgroup").write_text("0::/\n")
    write_v2(machine / "fs", "3000", 2900, files=2500)
    assert free_host_memory() == 2600


def test_a_group_without_a_limit(machine: Path) -> None:
    (machine / "cgroup").write_text("0::/\n")
    write_v2(machine / "fs", "max", 1000)
    assert free_host_memory() == FREE


def test_the_lowest_limit_of_all_groups_above_counts(machine: Path) -> None:
    (machine / "cgroup").write_text("0::/system.slice/gemma.service\n")
    write_v2(machine / "fs/system.slice/gemma.service", "max", 100)
    write_v2(machine / "fs/system.slice", "5000", 1000)
    assert free_host_memory() == 4000


@pytest.mark.parametrize("path", ["/", "/docker/0123", "/../other"])
def test_a_container_of_version_1(machine: Path, path: str) -> None:
    """Its own group is mounted at the top, whatever the path outside of it is."""
    (machine / "cgroup").write_text(f"5:cpu,cpuacct:{path}\n4:memory:{path}\n0::/\n")
    write_v1(machine / "fs/memory", 7000, 6500, files=1500)
    assert free_host_memory() == 2000


def test_version_1_without_a_limit(machine: Path) -> None:
    (machine / "cgroup").write_text("4:memory:/a\n")
    write_v1(machine / "fs/memory/a", 9_223_372_036_854_771_712, 6500)
    assert free_host_memory() == FREE


def test_a_group_over_its_limit_has_nothing_left(machine: Path) -> None:
    (machine / "cgroup").write_text("4:memory:/a\n")
    write_v1(machine / "fs/memory/a", 1000, 1100)
    assert free_host_memory() == 0
