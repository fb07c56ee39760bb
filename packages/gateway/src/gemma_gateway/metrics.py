"""What Prometheus reads at ``/metrics``.

The names behind the prefix, and the units, are vLLM's, so that dashboards and alerts written for it need only
another prefix; what it leaves to others (``http_…``) is called as the usual instrumentation of FastAPI calls
it. The prefix is ours, because what is measured is: ``gemma_api_`` is the gateway's view, and apart from
``gemma_…``, the model's own, which Triton serves at its metrics port.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

_PREFIX: Final = "gemma_api"
# Seconds. A token of a small model on a GPU takes milliseconds, a long answer on a Jetson many minutes.
_TOKEN: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5)
_FIRST: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
_WHOLE: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1200, 3600)
_COUNTS: Final = tuple(2**power for power in range(16))


class Metrics:
    """The collectors, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.http_requests = self._counter(
            "http_requests", "HTTP requests answered.", "method", "handler", "status"
        )
        self.http_seconds = self._histogram(
            "http_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            _WHOLE,
            "handler",
        )
        self.http_in_flight = self._gauge("http_requests_in_flight", "HTTP requests that are being answered.")
        self.errors = self._counter("errors", "Errors told to clients, in mid-stream too.", "code")
        self.running = self._gauge("num_requests_running", "Generations that are under way or in the queue.")
        self.finished = self._counter("request_success", "Choices that came to their end.", "finished_reason")
        self.aborted = self._counter(
            "request_aborted", "Generations that did not: cancelled, or the model's error.", "reason"
        )
        self.schema_answers = self._counter(
            "schema_answers", "Answers validated because not all of their schemas is enforced.", "valid"
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self.cached_tokens = self._counter("prefix_cache_hits", "Tokens of prompts that were not run again.")
        self.generation_tokens = self._counter("generation_tokens", "Tokens of answers.")
        self.request_prompt = self._histogram("request_prompt_tokens", "Tokens of a prompt.", _COUNTS)
        self.request_generation = self._histogram(
            "request_generation_tokens", "Tokens of an answer.", _COUNTS
        )
        self.first = self._histogram(
            "time_to_first_token_seconds", "From asking the model to its first piece.", _FIRST
        )
        self.between = self._histogram(
            "inter_token_latency_seconds",
            "Between two pieces of an answer; a piece is a token, or several.",
            _TOKEN,
        )
        self.per_token = self._histogram(
            "request_time_per_output_token_seconds", "Mean over an answer, without its first token.", _TOKEN
        )
        self.whole = self._histogram(
            "e2e_request_latency_seconds", "From asking the model to its last piece.", _WHOLE
        )
        self.queued = self._histogram("request_queue_time_seconds", "In the model's queue.", _FIRST)
        self.prefill = self._histogram("request_prefill_time_seconds", "On the prompt.", _FIRST)
        self.decode = self._histogram("request_decode_time_seconds", "On the answer.", _WHOLE)

    @property
    def generations(self) -> int:
        """Generations that are under way or in the queue."""
        return int(next(iter(self.running.collect())).samples[0].value)

    def render(self, accept: str) -> tuple[bytes, str]:
        """All of it, in the format that the scraper accepts, and that format's media type."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=_PREFIX, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, namespace=_PREFIX, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace=_PREFIX, registry=self.registry, buckets=buckets)
