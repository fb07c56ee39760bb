from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest

from gemma_model.engine_types import EngineInfo, EngineTotals, Observation
from gemma_model.metrics import BUCKETS, Metrics

IDLE = EngineInfo("native", "cpu", "float32", 1, max_num_seqs=16, running=0, waiting=0, cache_tokens=1000)
BUSY = replace(
    IDLE,
    running=2,
    waiting=1,
    slots_used=5,
    cache_tokens_used=70,
    prefix_cache_tokens=500,
    prefix_cache_tokens_used=64,
    totals=EngineTotals(90, 12, 90, 40, {"stop": 3, "failed": 1}, {"grammar": 8, "ngram": 5}, {"grammar": 7}),
)


@dataclass
class FakeMetric:
    """Triton's, as far as it is used: a counter only grows, a histogram has buckets."""

    kind: str
    value: float = 0.0
    calls: int = 0
    observed: list[float] = field(default_factory=list)

    def set(self, value: float) -> None:
        assert self.kind == "gauge"
        self.value, self.calls = value, self.calls + 1

    def increment(self, value: float) -> None:
        assert self.kind == "counter"
        assert value > 0
        self.value, self.calls = self.value + value, self.calls + 1

    def observe(self, value: float) -> None:
        assert self.kind == "histogram"
        self.observed.append(value)


class FakeFamily:
    GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"
    made: ClassVar[dict[str, FakeMetric]] = {}

    def __init__(self, name: str, description: str, kind: str) -> None:
        assert description
        self._name, self._kind = name, kind

    def Metric(self, labels: dict[str, str], buckets: list[float] | None = None) -> FakeMetric:  # noqa: N802
        assert labels["model"] == "gemma"
        assert (buckets == BUCKETS) == (self._kind == "histogram")
        name = f"{self._name}{labels.get('finish', '')}{labels.get('kind', '')}"
        assert name not in self.made
        self.made[name] = FakeMetric(self._kind)
        return self.made[name]


class FakeTriton:
    MetricFamily = FakeFamily


@pytest.fixture
def made() -> dict[str, FakeMetric]:
    FakeFamily.made.clear()
    return FakeFamily.made


def test_everything_is_shown_under_its_name(made: dict[str, FakeMetric]) -> None:
    metrics = Metrics(FakeTriton, "gemma")
    metrics.update(BUSY, [Observation("queue", 0.5), Observation("inter_token", 0.02)])
    assert {name: metric.value for name, metric in made.items() if metric.kind != "histogram"} == {
        "gemma_requests_running": 2,
        "gemma_requests_waiting": 1,
        "gemma_slots": 16,
        "gemma_slots_used": 5,
        "gemma_cache_tokens": 1000,
        "gemma_cache_tokens_used": 70,
        "gemma_prefix_cache_tokens": 500,
        "gemma_prefix_cache_tokens_used": 64,
        "gemma_prompt_tokens_total": 90,
        "gemma_generated_tokens_total": 12,
        "gemma_prefix_cache_queried_tokens_total": 90,
        "gemma_prefix_cache_hit_tokens_total": 40,
        "gemma_draft_tokens_totalgrammar": 8,
        "gemma_draft_tokens_totalprediction": 0,
        "gemma_draft_tokens_totalngram": 5,
        "gemma_accepted_draft_tokens_totalgrammar": 7,
        "gemma_accepted_draft_tokens_totalprediction": 0,
        "gemma_accepted_draft_tokens_totalngram": 0,
        "gemma_choices_finished_totalstop": 3,
        "gemma_choices_finished_totallength": 0,
        "gemma_choices_finished_totalcancelled": 0,
        "gemma_choices_finished_totalfailed": 1,
    }
    assert {name: metric.observed for name, metric in made.items() if metric.kind == "histogram"} == {
        "gemma_queue_seconds": [0.5],
        "gemma_prefill_seconds": [],
        "gemma_decode_seconds": [],
        "gemma_time_to_first_token_seconds": [],
        "gemma_inter_token_seconds": [0.02],
    }


def test_only_changed_metrics_are_set(made: dict[str, FakeMetric]) -> None:
    metrics = Metrics(FakeTriton, "gemma")
    more = replace(BUSY, totals=EngineTotals(91, 12, 90, 40))
    for info in (IDLE, IDLE, BUSY, BUSY, replace(BUSY, waiting=7), more):
        metrics.update(info)
    assert made["gemma_requests_waiting"].calls == 3
    assert made["gemma_requests_running"].calls == 1
    assert (made["gemma_prompt_tokens_total"].calls, made["gemma_prompt_tokens_total"].value) == (2, 91)


def test_an_error_of_a_metric_does_not_affect_responses(
    made: dict[str, FakeMetric], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics(FakeTriton, "gemma")

    def fail(value: Any) -> None:
        raise RuntimeError("the server is gone")

    monkeypatch.setattr(made["gemma_requests_running"], "set", fail)
    metrics.update(BUSY)
    assert "the metrics could not be set" in caplog.text
