"""``docker-compose.yml`` as data, and as Docker Compose itself resolves it, where there is one."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import yaml

from stack import ROOT

FILE = ROOT / "docker-compose.yml"
PROFILES = ("gpu", "cpu", "jetson", "observability")


def services() -> dict[str, dict[str, Any]]:
    """The services as they are written, anchors and merges resolved, variables not."""
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"])


def environment(service: str) -> dict[str, str]:
    """A service's environment when no variable is set in the shell."""
    written = services()[service].get("environment", {})
    return {name: interpolate(str(value), {}) for name, value in written.items()}


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """``${NAME:-default}`` filled in."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: variables.get(match[1]) or match[2], text)


def variables() -> set[str]:
    """The names that are taken from the shell."""
    return set(re.findall(r"\$\{(\w+)", FILE.read_text(encoding="utf-8")))


def command() -> list[str] | None:
    """Docker Compose 2, as a plugin of docker or by itself; none when there is neither."""
    bundled = ROOT / ".tools" / "compose" / "docker-compose"
    for candidate in (["docker", "compose"], [str(bundled)], ["docker-compose"]):
        if shutil.which(candidate[0]) is None:
            continue
        run = subprocess.run([*candidate, "version", "--short"], capture_output=True, text=True, check=False)
        if run.returncode == 0 and run.stdout.strip().lstrip("v").startswith(("2.", "3.", "4.", "5.")):
            return candidate
    return None


def resolved(compose: list[str], *profiles: str, **shell: str) -> dict[str, Any]:
    """What Docker Compose makes of the file; an assertion fails with its words when it does not like it."""
    chosen = [part for profile in profiles for part in ("--profile", profile)]
    run = subprocess.run(
        [*compose, "--project-directory", ROOT, "--file", FILE, *chosen, "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **shell},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert not run.stderr, run.stderr
    return dict(json.loads(run.stdout))
