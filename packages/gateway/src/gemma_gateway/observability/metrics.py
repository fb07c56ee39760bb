"""The gateway's Prometheus metrics.

Names and units after the prefix are vLLM's, so that its dashboards and alerts only need another prefix.
``http_…`` is named as the usual instrumentation of FastAPI names it. The prefix ``gemma_api_`` distinguishes
the gateway's view from ``gemma_…``, the metrics of the model at Triton's metrics port.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

_PREFIX: Final = "gemma_api"
# Seconds. A token of a small model on a GPU takes milliseconds, a long response on a Jetson many minutes.
_TOKEN: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5)
_FIRST_TOKEN: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
_REQUEST: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1200, 3600)
_COUNTS: Final = tuple(2**power for power in range(16))


class GatewayMetrics:
    """The collectors, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.http_requests = self._counter(
            "http_requests", "HTTP requests with a response.", "method", "handler", "status"
        )
        self.http_seconds = self._histogram(
            "http_request_duration_seconds",
            "From the head of a request to the end of its response.",
            _REQUEST,
            "handler",
        )
        self.http_in_flight = self._gauge("http_requests_in_flight", "HTTP requests in progress.")
        self.errors = self._counter("errors", "Errors sent to clients, including those in a stream.", "code")
        self.running = self._gauge("num_requests_running", "Generations that are running or queued.")
        self.finished = self._counter("request_success", "Choices that were completed.", "finished_reason")
        self.aborted = self._counter(
            "request_aborted", "Generations that were not completed: cancelled, or failed.", "reason"
        )
        self.routed = self._counter(
            "routed_requests",
            "Requests sent to each Triton server; new: of a new conversation; same: its last turn ran there; "
            "moved: it ran elsewhere; retry: another server had refused the request.",
            "server",
            "reason",
        )
        self.schema_answers = self._counter(
            "schema_answers",
            "Results that were validated because their schema is only partly enforced.",
            "valid",
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens.")
        self.cached_tokens = self._counter("prefix_cache_hits", "Prompt tokens found in the prefix cache.")
        self.generation_tokens = self._counter("generation_tokens", "Generated tokens.")
        self.request_prompt = self._histogram("request_prompt_tokens", "Prompt tokens of a request.", _COUNTS)
        self.request_generation = self._histogram(
            "request_generation_tokens", "Generated tokens of a request.", _COUNTS
        )
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "From the call of the model to its first chunk.", _FIRST_TOKEN
        )
        self.inter_token_latency = self._histogram(
            "inter_token_latency_seconds",
            "Between two chunks of a choice; a chunk has one token or several.",
            _TOKEN,
        )
        self.time_per_output_token = self._histogram(
            "request_time_per_output_token_seconds", "Mean over a request, without its first token.", _TOKEN
        )
        self.e2e_latency = self._histogram(
            "e2e_request_latency_seconds", "From the call of the model to its last chunk.", _REQUEST
        )
        self.queue_time = self._histogram(
            "request_queue_time_seconds", "Time in the model's queue.", _FIRST_TOKEN
        )
        self.prefill_time = self._histogram(
            "request_prefill_time_seconds", "Prefill of the prompt.", _FIRST_TOKEN
        )
        self.decode_time = self._histogram(
            "request_decode_time_seconds", "Decoding of the new tokens.", _REQUEST
        )

    @property
    def generations(self) -> int:
        """Generations that are running or queued."""
        return int(next(iter(self.running.collect())).samples[0].value)

    def render(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the format that the scraper accepts, and the media type of that format."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=_PREFIX, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, namespace=_PREFIX, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace=_PREFIX, registry=self.registry, buckets=buckets)
