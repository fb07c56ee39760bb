"""The dashboard and the scraper ask only for what the code provides."""

import json
import re
from collections.abc import Iterator
from typing import Any

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


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def asked() -> set[str]:
    """Every metric that a query of the dashboard names."""
    return {name for panel in panels() for each in panel["targets"] for name in _METRIC.findall(each["expr"])}


def of_the_model() -> Iterator[str]:
    yield from (*model_metrics.GAUGES, *model_metrics.COUNTERS, model_metrics.FINISHED[0])
    for name, _ in model_metrics.HISTOGRAMS.values():
        yield from (f"{name}_bucket", f"{name}_sum", f"{name}_count")


def of_the_gateway() -> Iterator[str]:
    """The names as a scrape shows them; a metric with labels shows none before its first value."""
    kinds = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    for family in GatewayMetrics().registry.collect():
        yield from (family.name + end for end in kinds.get(family.type, ("",)))


def test_every_metric_of_the_dashboard_exists() -> None:
    assert asked() <= {*of_the_model(), *of_the_gateway()}


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
