"""The package index of this machine. Poetry alone asks PyPI's JSON API, which a mirror may not have."""

import subprocess

from stack import ROOT

POETRY = ROOT / ".tools" / "poetry"


def pip_index() -> str:
    """The package index that pip is configured for, as the Makefile finds it."""
    asked = (
        "from pip._internal.commands import create_command as c; "
        "print(c('install').parser.get_default_values().index_url)"
    )
    command = [str(POETRY / "bin" / "python"), "-c", asked]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
