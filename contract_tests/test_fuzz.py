"""schemathesis for every operation: valid and invalid data, examples, coverage, fuzzing, stateful."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from overlay import Json
from server import Server
from spec import contract, reached

SEED = 20260101
HERE = Path(__file__).parent


def _document() -> Json:
    """The contract; where nobody needs a key, none is spoken of.

    The schema of a response of the Responses API is left out: the check ``contract`` validates it, and its
    300 components refer to each other in more ways than schemathesis can follow.
    """
    document = copy.deepcopy(contract())
    created = document["paths"]["/v1/responses"]["post"]["responses"]["200"]
    created["content"]["application/json"]["schema"] = {}
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = {name: schemas[name] for name in reached(document)}
    if not os.environ.get("CONTRACT_API_KEY"):
        del document["security"]
        del document["components"]["securitySchemes"]
    return document


def fuzz(server: Server, folder: Path, *flags: str, seed: int = SEED) -> "subprocess.CompletedProcess[str]":
    """One run of schemathesis; ``folder/requests`` gets a line for each request."""
    document = folder / "openapi.json"
    document.write_text(json.dumps(_document()), encoding="utf-8")
    config = ("--config-file", str(HERE / "schemathesis.toml"))
    options = ("--url", server.url, "--header", f"Authorization: Bearer {server.key}", "--seed", str(seed))
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            *config,
            "run",
            str(document),
            *options,
            "--no-color",
            *flags,
        ],
        cwd=HERE,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "fuzz_hooks", "CONTRACT_COUNT": str(folder / "requests")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(600)
def test_generated_requests(server: Server, tmp_path: Path) -> None:
    run = fuzz(server, tmp_path, "--max-examples", "15")
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-5_000:]
