"""How long requests wait and run, and how much was done. Nothing else looks at a clock."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from gemma_model.protocol import Duration, Finish, Observation, Times, Totals

KEPT = 4096
"""Observations that wait for somebody to ask."""


@dataclass
class Stopwatch:
    """Of a request: when it came, when its prompt was begun, and when its first token was there."""

    submitted: float
    begun: float | None = None
    answered: float | None = None

    def times(self, now: float) -> Times:
        """Where the time until now has gone."""
        begun = now if self.begun is None else self.begun
        answered = now if self.answered is None else self.answered
        return Times(begun - self.submitted, answered - begun, now - answered)


class Meter:
    """Counts and times for one engine; whoever calls it sees to it that nobody else does.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._prompt_tokens = self._generated_tokens = self._prefix_queries = self._prefix_hits = 0
        self._finished: Counter[Finish] = Counter()
        self._observations: deque[Observation] = deque(maxlen=KEPT)
        self._last_step: float | None = None

    @property
    def totals(self) -> Totals:
        """All so far."""
        return Totals(
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
            prefix_queries=self._prefix_queries,
            prefix_hits=self._prefix_hits,
            finished=dict(self._finished),
        )

    def take(self) -> list[Observation]:
        """What was observed since the last call."""
        taken = list(self._observations)
        self._observations.clear()
        return taken

    def submitted(self) -> Stopwatch:
        """A request has come."""
        return Stopwatch(self._clock())

    def begun(self, watch: Stopwatch, looked_up: int, found: int) -> None:
        """Its prompt is run; the first time, that many tokens of it have been looked up in the cache."""
        if watch.begun is None:
            watch.begun = self._clock()
            self._prefix_queries += looked_up
            self._prefix_hits += found

    def answered(self, watch: Stopwatch, prompt_tokens: int) -> None:
        """The first token of one of its choices is there."""
        if watch.answered is not None:
            return
        now = watch.answered = self._clock()
        times = watch.times(now)
        self._prompt_tokens += prompt_tokens
        self._observe("queue", times.queued)
        self._observe("prefill", times.prefill)
        self._observe("first_token", times.queued + times.prefill)

    def stepped(self, tokens: int, decoded: bool) -> None:
        """A step has given new tokens, some of them behind those of the step before."""
        now = self._clock()
        self._generated_tokens += tokens
        if decoded and self._last_step is not None:
            self._observe("inter_token", now - self._last_step)
        self._last_step = now

    def finished(self, watch: Stopwatch, finish: Finish) -> Times:
        """A choice of it has ended."""
        times = watch.times(self._clock())
        self._finished[finish] += 1
        if watch.answered is not None:
            self._observe("decode", times.decode)
        return times

    def _observe(self, kind: Duration, seconds: float) -> None:
        self._observations.append(Observation(kind, seconds))
