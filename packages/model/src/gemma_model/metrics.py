"""The engine's metrics, on Triton's metrics port.

Setting a Triton metric is a round trip to the server. So the response sender updates them only a few times a
second, whatever the number of steps, and only those that have changed.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gemma_model.engine_types import DraftKind, Duration, EngineInfo, Finish, Observation

log = logging.getLogger(__name__)

GAUGES: Mapping[str, tuple[str, Callable[[EngineInfo], int]]] = {
    "gemma_requests_running": ("Requests that are running", lambda info: info.running),
    "gemma_requests_waiting": ("Requests in the queue", lambda info: info.waiting),
    "gemma_slots": ("Choices that can run at once", lambda info: info.max_num_seqs),
    "gemma_slots_used": ("Choices that are running", lambda info: info.slots_used),
    "gemma_cache_tokens": ("Tokens whose keys and values fit the cache", lambda info: info.cache_tokens),
    "gemma_cache_tokens_used": (
        "Tokens of running requests whose keys and values are in the cache",
        lambda info: info.cache_tokens_used,
    ),
    "gemma_prefix_cache_tokens": (
        "Tokens whose keys and values fit the prefix cache",
        lambda info: info.prefix_cache_tokens,
    ),
    "gemma_prefix_cache_tokens_used": (
        "Tokens whose keys and values are in the prefix cache",
        lambda info: info.prefix_cache_tokens_used,
    ),
}
COUNTERS: Mapping[str, tuple[str, Callable[[EngineInfo], int]]] = {
    "gemma_prompt_tokens_total": ("Tokens of prompts", lambda info: info.totals.prompt_tokens),
    "gemma_generated_tokens_total": ("New tokens", lambda info: info.totals.generated_tokens),
    "gemma_prefix_cache_queried_tokens_total": (
        "Tokens of prompts that were looked up in the cache",
        lambda info: info.totals.prefix_queries,
    ),
    "gemma_prefix_cache_hit_tokens_total": (
        "Tokens of prompts that were found in the cache and not run again",
        lambda info: info.totals.prefix_hits,
    ),
}
DRAFTED = "gemma_draft_tokens_total", "Tokens of drafts that were checked, by kind"
ACCEPTED = "gemma_accepted_draft_tokens_total", "Of these, tokens that are in the output, by kind"
DRAFT_KINDS: tuple[DraftKind, ...] = ("grammar", "prediction", "ngram")
FINISHED = "gemma_choices_finished_total", "Choices that have ended, by cause"
FINISHES: tuple[Finish, ...] = ("stop", "length", "cancelled", "failed")
HISTOGRAMS: Mapping[Duration, tuple[str, str]] = {
    "queue": ("gemma_queue_seconds", "From a request to the beginning of its prompt"),
    "prefill": ("gemma_prefill_seconds", "From the beginning of a prompt to the first new token"),
    "decode": ("gemma_decode_seconds", "From the first new token to the last"),
    "first_token": ("gemma_time_to_first_token_seconds", "From a request to its first new token"),
    "inter_token": ("gemma_inter_token_seconds", "Between two tokens of a stream, once for each step"),
}
BUCKETS = [1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0]
"""Upper bounds in seconds."""


class Metrics:
    """The model's own metrics.

    Args:
        pb_utils: ``triton_python_backend_utils``, which only the backend can import.
        model: their label.
    """

    def __init__(self, pb_utils: Any, model: str) -> None:
        self._family, self._labels = pb_utils.MetricFamily, {"model": model}
        self._families: list[Any] = []  # Triton forgets a metric whose family object is gone
        self._gauges = {name: self._metric(name, text, "GAUGE") for name, (text, _) in GAUGES.items()}
        self._counters = {name: self._metric(name, text, "COUNTER") for name, (text, _) in COUNTERS.items()}
        family = self._new_family(*FINISHED, "COUNTER")
        self._finished = {x: family.Metric(labels={**self._labels, "finish": x}) for x in FINISHES}
        self._drafted = self._by_kind(*DRAFTED)
        self._accepted = self._by_kind(*ACCEPTED)
        self._histograms = {
            kind: self._new_family(name, text, "HISTOGRAM").Metric(labels=self._labels, buckets=BUCKETS)
            for kind, (name, text) in HISTOGRAMS.items()
        }
        self._reported: dict[str, int] = {}

    def update(self, info: EngineInfo, observations: Iterable[Observation] = ()) -> None:
        """Set what has changed since the last call; an error of a metric never affects a response."""
        try:
            for name, (_, read) in GAUGES.items():
                if self._increase(name, read(info)):
                    self._gauges[name].set(read(info))
            for name, (_, read) in COUNTERS.items():
                if more := self._increase(name, read(info)):
                    self._counters[name].increment(more)
            for finish, metric in self._finished.items():
                if more := self._increase(finish, info.totals.finished.get(finish, 0)):
                    metric.increment(more)
            self._count(DRAFTED[0], self._drafted, info.totals.drafted)
            self._count(ACCEPTED[0], self._accepted, info.totals.accepted)
            for observation in observations:
                self._histograms[observation.kind].observe(observation.seconds)
        except Exception:
            log.exception("the metrics could not be set")

    def _increase(self, name: str, value: int) -> int:
        """The change since the last report; metrics start at 0."""
        before, self._reported[name] = self._reported.get(name, 0), value
        return value - before

    def _count(self, name: str, metrics: Mapping[DraftKind, Any], totals: Mapping[DraftKind, int]) -> None:
        for kind, metric in metrics.items():
            if more := self._increase(f"{name}{kind}", totals.get(kind, 0)):
                metric.increment(more)

    def _by_kind(self, name: str, text: str) -> dict[DraftKind, Any]:
        family = self._new_family(name, text, "COUNTER")
        return {kind: family.Metric(labels={**self._labels, "kind": kind}) for kind in DRAFT_KINDS}

    def _metric(self, name: str, text: str, kind: str) -> Any:
        return self._new_family(name, text, kind).Metric(labels=self._labels)

    def _new_family(self, name: str, text: str, kind: str) -> Any:
        family = self._family(name=name, description=text, kind=getattr(self._family, kind))
        self._families.append(family)
        return family
