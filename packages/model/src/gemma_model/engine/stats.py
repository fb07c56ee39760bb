"""Durations of requests and counts of tokens, for the metrics; takes the time with an injected clock."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from gemma_model.engine.drafts.drafter import Checked
from gemma_model.engine_types import DraftKind, Duration, EngineTotals, Finish, Observation
from gemma_wire import Timings

MAX_OBSERVATIONS = 4096
"""Observations that are kept until they are read."""


@dataclass
class RequestTimer:
    """The times at which a request was submitted, its prefill started, and its first token was there."""

    submitted: float
    prefill_started: float | None = None
    first_token: float | None = None

    def timings(self, now: float) -> Timings:
        """Where the time until now has gone."""
        started = now if self.prefill_started is None else self.prefill_started
        first = now if self.first_token is None else self.first_token
        return Timings(queued=started - self.submitted, prefill=first - started, decode=now - first)


class EngineStats:
    """Counts and times of one engine; not thread-safe.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._prompt_tokens = self._generated_tokens = self._prefix_queries = self._prefix_hits = 0
        self._finished: Counter[Finish] = Counter()
        self._drafted: Counter[DraftKind] = Counter()
        self._accepted: Counter[DraftKind] = Counter()
        self._observations: deque[Observation] = deque(maxlen=MAX_OBSERVATIONS)
        self._last_step: float | None = None

    @property
    def totals(self) -> EngineTotals:
        """All counts so far."""
        return EngineTotals(
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
            prefix_queries=self._prefix_queries,
            prefix_hits=self._prefix_hits,
            finished=dict(self._finished),
            drafted=dict(self._drafted),
            accepted=dict(self._accepted),
        )

    def take_observations(self) -> list[Observation]:
        """The observations since the last call."""
        taken = list(self._observations)
        self._observations.clear()
        return taken

    def start_timer(self) -> RequestTimer:
        """A request was submitted."""
        return RequestTimer(self._clock())

    def prefill_started(self, timer: RequestTimer) -> None:
        """A prompt is being run."""
        if timer.prefill_started is None:
            timer.prefill_started = self._clock()

    def first_token(self, timer: RequestTimer, prompt_tokens: int, looked_up: bool, cached: int) -> None:
        """A choice of the request has its first token.

        Args:
            timer: of the request.
            prompt_tokens: of the request.
            looked_up: whether its prompt was looked up in the prefix cache.
            cached: prompt tokens that were found there.
        """
        if timer.first_token is not None:
            return
        self._prefix_queries += prompt_tokens if looked_up else 0
        self._prefix_hits += cached
        now = timer.first_token = self._clock()
        timings = timer.timings(now)
        self._prompt_tokens += prompt_tokens
        self._observe("queue", timings.queued)
        self._observe("prefill", timings.prefill)
        self._observe("first_token", timings.queued + timings.prefill)

    def step_done(self, tokens: int, decoded: bool) -> None:
        """A step has returned new tokens; ``decoded``: some of them follow those of the last step."""
        now = self._clock()
        self._generated_tokens += tokens
        if decoded and self._last_step is not None:
            self._observe("inter_token", now - self._last_step)
        self._last_step = now

    def draft_checked(self, checked: Checked) -> None:
        """A step has checked a draft."""
        self._drafted[checked.kind] += checked.drafted
        self._accepted[checked.kind] += checked.accepted

    def choice_finished(self, timer: RequestTimer, finish: Finish) -> Timings:
        """A choice of the request has ended."""
        timings = timer.timings(self._clock())
        self._finished[finish] += 1
        if timer.first_token is not None:
            self._observe("decode", timings.decode)
        return timings

    def _observe(self, kind: Duration, seconds: float) -> None:
        self._observations.append(Observation(kind, seconds))
