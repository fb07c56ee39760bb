"""The profile observability on an engine: targets are up, and the dashboard's queries return data.

Grafana is not started: Debian has no package of it, and the stand-in images are made of Debian's packages.
"""

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import base_images
from engine_stack import CHAT, LONG, QUESTION, SERVICES, Containers, ask, load
from stack import eventually
from test_observability import FOLDER, panels

PROMETHEUS_URL = "http://127.0.0.1:9090"
STAND_IN = f"services:\n  prometheus: {{image: {base_images.PROMETHEUS!r}}}\n"
QUERIES = sorted({target["expr"] for panel in panels() for target in panel["targets"]})


@pytest.fixture(scope="module")
def prometheus(volumes: Containers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """The stack and Prometheus, and some traffic: answers, refused requests, clients that leave."""
    file = tmp_path_factory.mktemp("compose") / "prometheus.yml"
    file.write_text(STAND_IN if volumes.engine.has_stand_ins else "services: {}\n", encoding="utf-8")
    containers = Containers(volumes.engine, (file,))
    containers.up(*SERVICES)
    containers.compose("--profile", "observability", "up", "--detach", "--wait", "--no-build", "prometheus")
    try:
        assert eventually(lambda: all(_is_up(name) for name in ("triton", "api")), 60)
        yield containers
    finally:
        containers.compose("--profile", "observability", "rm", "--stop", "--force", "prometheus")


def _asked(query: str) -> list[dict[str, Any]]:
    url = f"{PROMETHEUS_URL}/api/v1/query"
    found = httpx.get(url, params={"query": query}, timeout=10, trust_env=False).json()
    assert found["status"] == "success", found
    return list(found["data"]["result"])


def _is_up(job: str) -> bool:
    return [each["value"][1] for each in _asked(f'up{{job="{job}"}}')] == ["1"]


def _some_traffic() -> None:
    prompt = "the same words " * 40
    for _ in range(2):
        assert ask({**QUESTION, "messages": [{"role": "user", "content": prompt}]})[0] == 200
    assert ask({**QUESTION, "model": "another"})[0] == 404
    with load(2):  # whose clients leave at the end
        pass
    with httpx.stream("POST", CHAT, json=LONG, timeout=60, trust_env=False) as response:
        next(response.iter_lines())


def _has_data(query: str) -> bool:
    found = _asked(query.replace("$__rate_interval", "1m"))
    return bool(found) and all(each["value"][1] != "NaN" for each in found)


def test_each_query_of_the_dashboard_returns_data(prometheus: Containers) -> None:
    missing = set(QUERIES)

    def all_have_data() -> bool:
        _some_traffic()
        missing.difference_update({query for query in missing if _has_data(query)})
        return not missing

    assert eventually(all_have_data, 150), missing
    print(f"\n{len(QUERIES)} queries return data")


def test_prometheus_stores_in_its_volume_alone(prometheus: Containers) -> None:
    assert not prometheus.engine.written("gemma-triton-test-prometheus-1")


@pytest.mark.long
def test_promtool_accepts_the_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; on Debian it is in the package prometheus")
    subprocess.run(
        [promtool, "check", "config", "--syntax-only", FOLDER / "prometheus.yml"],
        check=True,
        capture_output=True,
    )
