"""The native engine: a thread that plans, runs and commits steps for as long as there is work."""

import logging
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from gemma_model.engine.scheduler import Outcome, Plan, QueueFull, Scheduler
from gemma_model.engine.sequence import Sequence, keys_of
from gemma_model.engine.slots import Slots
from gemma_model.protocol import EngineInfo, Generation, Listener, Step
from gemma_model.settings import Settings
from gemma_wire import ContextLengthExceeded, Overloaded, Unavailable

log = logging.getLogger(__name__)


class PlanRunner(Protocol):
    """What makes tokens."""

    def run(self, plan: Plan, generations: Mapping[int, Generation]) -> Outcome:
        """Run every sequence of the plan; raise when that is impossible for all."""


@dataclass(frozen=True)
class _Job:
    generation: Generation
    listen: Listener


class Loop:
    """Submit, cancel, step. All methods but ``step`` may be called from any thread.

    Args:
        runner: used by one thread at a time.
        scheduler: nobody else's.
        length: tokens of prompt and answer together.
    """

    def __init__(self, runner: PlanRunner, scheduler: Scheduler, length: int) -> None:
        self._runner, self._scheduler, self._length = runner, scheduler, length
        self._jobs: dict[int, _Job] = {}
        self._cancelled: set[int] = set()
        self._count, self._closing = 0, False
        self._changed = threading.Condition()  # holds its lock whoever touches anything above

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._scheduler.waiting

    @property
    def running(self) -> int:
        """Requests with a slot."""
        return self._scheduler.running

    def submit(self, generation: Generation, listen: Listener) -> int:
        """Queue a generation and return its number; ``listen`` gets its steps from the engine's thread.

        Raises:
            Overloaded: when the queue is full.
            ContextLengthExceeded: when it can never fit a slot.
            Unavailable: when the engine is closed.
        """
        self._check_length(generation)
        with self._changed:
            if self._closing:
                raise Unavailable("the engine is shutting down")
            number = self._count
            try:
                self._scheduler.submit(_sequence(number, generation))
            except QueueFull:
                message = f"{self._scheduler.waiting} requests are waiting already, try again later"
                raise Overloaded(message) from None
            self._count += 1
            self._jobs[number] = _Job(_seeded(generation), listen)
            self._changed.notify()
        return number

    def cancel(self, number: int) -> None:
        """End a generation within one step, with ``finish="cancelled"``; an ended one is left alone."""
        with self._changed:
            if number in self._jobs:
                self._cancelled.add(number)
                self._changed.notify()

    def step(self) -> bool:
        """Plan, run, commit; tell the listeners. Whether there was anything to do."""
        with self._changed:
            reaped = self._reap()
            plan = self._scheduler.plan()
            generations = {number: job.generation for number, job in self._jobs.items()}
        self._tell(reaped)
        if not plan:
            return bool(reaped)
        try:
            outcome = self._runner.run(plan, generations)
        except Exception as error:
            log.exception("a step failed")
            self._fail(error)
            return True
        self._commit(plan, outcome)
        return True

    def _commit(self, plan: Plan, outcome: Outcome) -> None:
        tokens, failed = outcome.tokens, outcome.failed
        with self._changed:
            news = self._scheduler.commit(plan, tokens, failed)
            told = [(self._job(s), _step(s, tokens[s.number])) for s in news]
            told += [(self._jobs.pop(number), Step(error=error)) for number, error in failed.items()]
        self._tell(told)

    def drain(self) -> None:
        """Refuse what comes, and cancel all there is."""
        with self._changed:
            self._closing = True
            self._cancelled.update(self._jobs)
            reaped = self._reap()
        self._tell(reaped)

    def wait(self) -> bool:
        """Sleep until there is something to do; false when the engine is to close."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._cancelled or self._jobs)
            return not self._closing

    def stop(self) -> None:
        """Make ``wait`` return false."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _check_length(self, generation: Generation) -> None:
        prompt, wanted = len(generation.prompt.token_ids), generation.max_tokens
        if not prompt or prompt + wanted > self._length:
            message = f"{prompt} prompt tokens and {wanted} new ones do not fit {self._length} tokens"
            raise ContextLengthExceeded(message, "max_tokens")

    def _reap(self) -> list[tuple[_Job, Step]]:
        ended = [self._scheduler.cancel(number) for number in sorted(self._cancelled)]
        self._cancelled.clear()
        return [(self._job(s), Step(finish="cancelled")) for s in ended if s is not None]

    def _fail(self, error: Exception) -> None:
        step = Step(error=f"{type(error).__name__}: {error}")
        with self._changed:
            told = [(self._jobs.pop(s.number), step) for s in self._scheduler.abort()]
        self._tell(told)

    def _job(self, sequence: Sequence) -> _Job:
        """The job of a sequence, which is over when the sequence has left."""
        over = sequence.finish is not None
        return self._jobs.pop(sequence.number) if over else self._jobs[sequence.number]

    def _tell(self, news: list[tuple[_Job, Step]]) -> None:
        for job, step in news:
            try:
                job.listen(step)
            except Exception:
                log.exception("a listener failed")


class NativeEngine:
    """The Engine protocol over our own decoder.

    Args:
        checkpoint: its folder.
        settings: settings.

    Raises:
        InvalidRequest: when the checkpoint cannot be honoured, or the cache does not fit.
    """

    def __init__(self, checkpoint: Path, settings: Settings | None = None) -> None:
        from gemma_model.engine.runner import Loaded  # noqa: PLC0415 - torch takes seconds to import

        settings = settings or Settings()
        loaded = Loaded(checkpoint, settings)
        self._device, self._dtype = loaded.device_name, str(loaded.dtype).removeprefix("torch.")
        self._memory_bytes, self._max_num_seqs = loaded.memory_bytes, settings.max_num_seqs
        slots = Slots(settings.max_num_seqs, loaded.window, loaded.ring)
        scheduler = Scheduler(slots, settings.max_queue, settings.prefill_chunk)
        self._loop = Loop(loaded.runner, scheduler, loaded.length)
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def submit(self, generation: Generation, listen: Listener) -> int:
        """See ``Loop.submit``."""
        return self._loop.submit(generation, listen)

    def cancel(self, number: int) -> None:
        """See ``Loop.cancel``."""
        self._loop.cancel(number)

    def info(self) -> EngineInfo:
        """A snapshot."""
        return EngineInfo(
            name="native",
            device=self._device,
            dtype=self._dtype,
            memory_bytes=self._memory_bytes,
            max_num_seqs=self._max_num_seqs,
            running=self._loop.running,
            waiting=self._loop.waiting,
        )

    def close(self) -> None:
        """Cancel everything, and return when the thread has ended."""
        self._loop.stop()
        self._thread.join()

    def _serve(self) -> None:
        while self._loop.wait():
            self._loop.step()
        self._loop.drain()


def _step(sequence: Sequence, token: int) -> Step:
    assert sequence.finish != "failed", "those have no new token"
    return Step((token,), sequence.finish, cached_tokens=sequence.reused_length)


def _sequence(number: int, generation: Generation) -> Sequence:
    spans = ((span.start, span.length, span.media.digest) for span in generation.prompt.spans)
    keys = keys_of(generation.prompt.token_ids, spans)
    return Sequence(number, keys, generation.max_tokens, generation.min_tokens, generation.stop_token_ids)


def _seeded(generation: Generation) -> Generation:
    """With a seed of its own where the caller gave none."""
    if generation.sampling.seed is not None:
        return generation
    return replace(generation, sampling=replace(generation.sampling, seed=secrets.randbits(63)))
