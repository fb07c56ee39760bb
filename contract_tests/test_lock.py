"""The lock file."""

import tomllib
from collections import Counter

import pytest
from packaging.markers import Marker

from stack import ROOT


@pytest.mark.parametrize("python", ["3.11", "3.12"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_each_package_is_installed_in_one_version(python: str, machine: str) -> None:
    """Two versions of one package go into the same folder and overwrite each other's files."""
    here = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
    }
    packages = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))["package"]
    wanted = (p["name"] for p in packages if _applies(p.get("markers"), here))
    installed = Counter(wanted)
    assert "torch" in installed
    assert [name for name, count in installed.items() if count > 1] == []


def _applies(markers: str | dict[str, str] | None, here: dict[str, str]) -> bool:
    """Poetry writes one marker, or one for each dependency group."""
    each = markers.values() if isinstance(markers, dict) else [markers]
    return any(marker is None or Marker(marker).evaluate(here) for marker in each)
