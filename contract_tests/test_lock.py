"""The lock, which every installation follows."""

import tomllib
from collections import Counter

from stack import ROOT


def test_each_package_is_locked_once() -> None:
    """Two versions of one package go into the same folder and overwrite each other's files."""
    lock = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))
    counts = Counter(package["name"] for package in lock["package"])
    assert [name for name, count in counts.items() if count > 1] == []
