"""Freed bodies do not stay in the process."""

import subprocess
import sys

import pytest

BODIES = """
import sys

import psutil

from gemma_gateway.malloc import return_large_blocks

if sys.argv[1] == "set":
    return_large_blocks()
largest = bytes(8_000_000)
del largest  # the C library takes what is smaller from the heap from now on
before = psutil.Process().memory_info().rss
bodies, kept = [], []
for number in range(300):
    bodies.append(bytes(b"x" * 300_000))
    kept.append(bytes(b"y" * 20_000))
del bodies
print(psutil.Process().memory_info().rss - before - 300 * 20_000)
"""


def grown(setting: str) -> int:
    """Bytes that a process keeps of 90 MB of freed bodies, between which something small stays."""
    command = [sys.executable, "-c", BODIES, setting]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="an allocator of Linux")
def test_freed_bodies_are_returned_to_the_system() -> None:
    assert grown("set") < 3_000_000
    assert grown("default") > 50_000_000, "the C library has changed: is the setting still needed?"
