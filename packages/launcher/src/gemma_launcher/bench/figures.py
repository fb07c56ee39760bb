"""From the times of single requests to the figures of a level of load: pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

BUSY_CLIENT = 0.8
"""Above this share of one core the client itself may be what is measured."""


@dataclass
class Answer:
    """One request, as its client saw it; times are seconds of one monotonic clock.

    Args:
        sent: when it went out.
        pieces: when each piece of text came.
        ended: when the stream was over.
        prompt_tokens, completion_tokens: by the server's usage; 0 where it gave none.
        error: why there is no answer; empty when there is.
    """

    sent: float
    pieces: list[float] = field(default_factory=list)
    ended: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""

    @property
    def first_s(self) -> float:
        """Until the first piece."""
        return self.pieces[0] - self.sent

    @property
    def gaps_s(self) -> list[float]:
        """Between one piece and the next."""
        return [later - earlier for earlier, later in zip(self.pieces, self.pieces[1:], strict=False)]


@dataclass(frozen=True)
class Spread:
    """A quantity over many observations, in milliseconds."""

    mean: float
    p50: float
    p95: float
    p99: float

    @staticmethod
    def of(seconds: Sequence[float]) -> "Spread | None":
        """None of no observation."""
        if not seconds:
            return None
        ordered = sorted(seconds)
        return Spread(
            fmean(ordered) * 1e3, *(percentile(ordered, share) * 1e3 for share in (0.5, 0.95, 0.99))
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Of ascending values, interpolated between neighbours."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True)
class Level:
    """What so many clients at once measured. The times are of the requests that succeeded, and of no other.

    Args:
        requests: all of them.
        failed: of these.
        errors: different reasons of failures, the first few.
        seconds: from the first request to the end of the last.
        output_tokens: of the requests that succeeded.
        prompt_tokens: the fewest and the most in one of them.
        first: time to the first token.
        gap: from one piece of an answer to the next.
        per_token_ms: time from the first to the last piece over the tokens that it brought.
        tokens_per_piece: how many tokens one piece holds, in the mean.
        total: of a whole request.
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
    first: Spread | None
    gap: Spread | None
    total: Spread | None
    per_token_ms: float | None
    tokens_per_piece: float
    client_cpu: float

    @property
    def client_is_busy(self) -> bool:
        """Whether the server may be faster than what was measured."""
        return self.client_cpu > BUSY_CLIENT


def summarise(clients: int, answers: Sequence[Answer], client_cpu_s: float) -> Level:
    """The figures of one level.

    Args:
        clients: so many at once.
        answers: of all requests.
        client_cpu_s: processor time that this process used meanwhile.
    """
    good = [answer for answer in answers if not answer.error]
    seconds = max(answer.ended for answer in answers) - min(answer.sent for answer in answers)
    prompts = [answer.prompt_tokens for answer in good] or [0]
    output = sum(answer.completion_tokens for answer in good)
    pieces = sum(len(answer.pieces) for answer in good)
    return Level(
        clients=clients,
        requests=len(answers),
        failed=len(answers) - len(good),
        errors=tuple(dict.fromkeys(answer.error for answer in answers if answer.error))[:3],
        seconds=seconds,
        output_tokens=output,
        prompt_tokens=(min(prompts), max(prompts)),
        output_tokens_per_s=output / seconds,
        tokens_per_s=(output + sum(answer.prompt_tokens for answer in good)) / seconds,
        first=Spread.of([answer.first_s for answer in good]),
        gap=Spread.of([gap for answer in good for gap in answer.gaps_s]),
        total=Spread.of([answer.ended - answer.sent for answer in good]),
        per_token_ms=_per_token_ms(good),
        tokens_per_piece=output / pieces if pieces else 0.0,
        client_cpu=client_cpu_s / seconds,
    )


def _per_token_ms(answers: Sequence[Answer]) -> float | None:
    """The first piece's time is that of the prompt, so it does not count here, nor does its token."""
    tokens = sum(answer.completion_tokens - 1 for answer in answers)
    seconds = sum(answer.pieces[-1] - answer.pieces[0] for answer in answers)
    return seconds / tokens * 1e3 if tokens > 0 else None
