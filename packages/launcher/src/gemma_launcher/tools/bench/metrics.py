"""Computes the metrics of a load level from the times of its requests. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

BUSY_CLIENT_CPU = 0.8
"""Above this share of one core, the client itself may limit the result."""


@dataclass
class RequestResult:
    """The result of one request; times are seconds of a monotonic clock.

    Args:
        sent_at: when it was sent.
        chunk_times: when each chunk with text was received.
        ended_at: when the stream ended.
        prompt_tokens, completion_tokens: from the server's usage; 0 without it.
        error: why it failed; empty if it succeeded.
    """

    sent_at: float
    chunk_times: list[float] = field(default_factory=list)
    ended_at: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""

    @property
    def first_s(self) -> float:
        """Time to first token, seconds."""
        return self.chunk_times[0] - self.sent_at

    @property
    def gaps_s(self) -> list[float]:
        """Times between consecutive chunks, seconds."""
        return [
            later - earlier for earlier, later in zip(self.chunk_times, self.chunk_times[1:], strict=False)
        ]


@dataclass(frozen=True)
class LatencySummary:
    """Mean and percentiles of a latency, milliseconds."""

    mean: float
    p50: float
    p95: float
    p99: float

    @staticmethod
    def of(seconds: Sequence[float]) -> "LatencySummary | None":
        """The summary; ``None`` without observations."""
        if not seconds:
            return None
        ordered = sorted(seconds)
        return LatencySummary(
            fmean(ordered) * 1e3, *(percentile(ordered, share) * 1e3 for share in (0.5, 0.95, 0.99))
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """A percentile of ascending values, linearly interpolated."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclass(frozen=True)
class LoadLevelResult:
    """The metrics of one number of concurrent clients. Latencies are of successful requests only.

    Args:
        clients: concurrent clients.
        requests: number of requests.
        failed: number of failed requests.
        errors: the first few different errors.
        seconds: from the start of the first request to the end of the last.
        output_tokens: of all successful requests.
        prompt_tokens: minimum and maximum.
        output_tokens_per_s, tokens_per_s: throughput, without and with prompt tokens.
        first: time to first token (TTFT).
        gap: time between consecutive chunks (inter-token latency).
        total: end-to-end latency.
        per_token_ms: time per output token after the first (TPOT).
        tokens_per_piece: mean number of tokens per chunk.
        client_cpu: share of one core that this process used.
    """

    clients: int
    requests: int
    failed: int
    errors: tuple[str, ...]
    seconds: float
    output_tokens: int
    prompt_tokens: tuple[int, int]
    output_tokens_per_s: float
    tokens_per_s: float
    first: LatencySummary | None
    gap: LatencySummary | None
    total: LatencySummary | None
    per_token_ms: float | None
    tokens_per_piece: float
    client_cpu: float

    @property
    def client_is_busy(self) -> bool:
        """Whether the server may be faster than measured."""
        return self.client_cpu > BUSY_CLIENT_CPU


def summarize(clients: int, results: Sequence[RequestResult], client_cpu_s: float) -> LoadLevelResult:
    """The metrics of one load level.

    Args:
        clients: concurrent clients.
        results: of all requests.
        client_cpu_s: CPU time that this process used meanwhile.
    """
    good = [result for result in results if not result.error]
    seconds = max(result.ended_at for result in results) - min(result.sent_at for result in results)
    prompts = [result.prompt_tokens for result in good] or [0]
    output = sum(result.completion_tokens for result in good)
    chunks = sum(len(result.chunk_times) for result in good)
    return LoadLevelResult(
        clients=clients,
        requests=len(results),
        failed=len(results) - len(good),
        errors=tuple(dict.fromkeys(result.error for result in results if result.error))[:3],
        seconds=seconds,
        output_tokens=output,
        prompt_tokens=(min(prompts), max(prompts)),
        output_tokens_per_s=output / seconds,
        tokens_per_s=(output + sum(result.prompt_tokens for result in good)) / seconds,
        first=LatencySummary.of([result.first_s for result in good]),
        gap=LatencySummary.of([gap for result in good for gap in result.gaps_s]),
        total=LatencySummary.of([result.ended_at - result.sent_at for result in good]),
        per_token_ms=_per_token_ms(good),
        tokens_per_piece=output / chunks if chunks else 0.0,
        client_cpu=client_cpu_s / seconds,
    )


def _per_token_ms(results: Sequence[RequestResult]) -> float | None:
    """Without the first chunk and its token, whose time is that of the prompt."""
    tokens = sum(result.completion_tokens - 1 for result in results)
    seconds = sum(result.chunk_times[-1] - result.chunk_times[0] for result in results)
    return seconds / tokens * 1e3 if tokens > 0 else None
