import re
from pathlib import Path

import pytest

from gemma_wire.setting_names import LAUNCHER_RUN, SETTING_NAMES, reported_settings, unknown_settings

ROOT = Path(__file__).parents[3]
PREFIXES = ("GEMMA_", "API_")


def test_the_names_are_those_of_the_documentation() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert len(documented) > 70
    assert documented == SETTING_NAMES


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("GEMMA_REPLICAS", "docs/configuration.md lists all settings"),
        ("GEMMA_MAX_SEQS", "did you mean GEMMA_MAX_NUM_SEQS?"),
        ("GEMMA_MODEL_NAME", "did you mean MODEL_NAME?"),
        ("API_KEY", "did you mean API_KEYS?"),
        ("API_ünknown", "docs/configuration.md lists all settings"),
    ],
)
def test_an_unknown_setting(name: str, advice: str) -> None:
    (sentence,) = unknown_settings({name: "secret"}, PREFIXES)
    assert sentence == f"{name} is not a setting and has no effect; {advice}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GEMMA_MAX_QUEUE", "3"),
        ("GEMMA_REPLICAS", ""),
        ("PLAYGROUND_REPLICAS", "3"),
        ("MY_GEMMA_REPLICAS", "3"),
        ("GEMMA_TRITON_SERVICE_HOST", "10.0.0.1"),
        ("GEMMA_TRITON_PORT_8001_TCP_ADDR", "10.0.0.1"),
        ("GEMMA_TRITON_PORT", "tcp://10.0.0.1:8001"),
    ],
)
def test_what_is_not_reported(name: str, value: str) -> None:
    assert unknown_settings({name: value}, PREFIXES) == []


def test_a_process_of_the_launcher_reports_nothing() -> None:
    assert len(reported_settings({"GEMMA_REPLICAS": "2"}, PREFIXES)) == 1
    assert reported_settings({"GEMMA_REPLICAS": "2", LAUNCHER_RUN: "gemma-1-1"}, PREFIXES) == []
