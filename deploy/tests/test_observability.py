"""The dashboard and the scraper ask only for what the code provides."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import compose
from gemma_gateway.observability.metrics import GatewayMetrics
from gemma_model import metrics as model_metrics
from stack import ROOT

FOLDER = ROOT / "deploy" / "observability"
DASHBOARD = FOLDER / "grafana" / "dashboards" / "gemma-triton.json"
_METRIC = re.compile(r"\bgemma_\w+|\bnv_\w+")


def dashboard() -> dict[str, Any]:
    return dict(json.loads(DASHBOARD.read_text(encoding="utf-8")))


def scraper() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8")))


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def asked() -> set[str]:
    """Every metric that a query of the dashboard names."""
    return {name for panel in panels() for each in panel["targets"] for name in _METRIC.findall(each["expr"])}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def of_the_model() -> Iterator[str]:
    counters = (model_metrics.FINISHED[0], model_metrics.DRAFTED[0], model_metrics.ACCEPTED[0])
    yield from (*model_metrics.GAUGES, *model_metrics.COUNTERS, *counters)
    for name, _ in model_metrics.HISTOGRAMS.values():
        yield from (f"{name}_bucket", f"{name}_sum", f"{name}_count")


def of_the_gateway() -> Iterator[str]:
    """The names as a scrape shows them; a metric with labels shows none before its first value."""
    kinds = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    for family in GatewayMetrics().registry.collect():
        yield from (family.name + end for end in kinds.get(family.type, ("",)))


def test_every_metric_of_the_dashboard_exists() -> None:
    assert asked() <= {*of_the_model(), *of_the_gateway()}


def test_every_metric_and_job_of_an_alert_exists() -> None:
    names = {name for rule in alerts() for name in _METRIC.findall(rule["expr"])}
    assert len(names) >= 3
    assert names <= {*of_the_model(), *of_the_gateway()}
    jobs = {each["job_name"] for each in scraper()["scrape_configs"]}
    for rule in alerts():
        for matched in re.findall(r'job=~"([^"]+)"', rule["expr"]):
            assert set(matched.split("|")) <= jobs


def test_prometheus_loads_the_alerts() -> None:
    (path,) = scraper()["rule_files"]
    mounted = dict(volume.split(":")[:2] for volume in compose.services()["prometheus"]["volumes"])
    assert mounted["./deploy/observability/alerts.yml"] == path


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "--lint-fatal", FOLDER / "alerts.yml"),
        ("test", "rules", ROOT / "deploy" / "tests" / "alerts_test.yml"),
    ],
    ids=["valid", "fire"],
)
def test_promtool_accepts_the_alerts(arguments: tuple[str | Path, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; on Debian it is in the package prometheus")
    run = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_dashboard_looks_at_both_and_at_more_than_a_few() -> None:
    assert len(asked() & set(of_the_model())) >= 10
    assert len(asked() & set(of_the_gateway())) >= 5


def test_panels_have_a_unit_a_text_and_a_place_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels())
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def test_provisioning_fits_together() -> None:
    folder = FOLDER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in panels()} == {source["uid"]}
    (provider,) = yaml.safe_load((folder / "dashboards" / "files.yml").read_text())["providers"]
    grafana = compose.services()["grafana"]
    mounted = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    assert all((ROOT / here).exists() for here in mounted)
    assert provider["options"]["path"] == mounted["./deploy/observability/grafana/dashboards"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{DASHBOARD.name}"
    assert source["url"] == "http://prometheus:9090"


def test_the_scraper_finds_its_targets() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    assert targets == {"triton": ["triton:8002"], "api": ["api:8080"]}
    assert all("metrics_path" not in job for job in jobs)  # /metrics at both
