"""Plan, run, commit: requests come and go at the border between steps."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from gemma_model.engine.choice import Choice
from gemma_model.engine.encoder_inputs import encoder_inputs
from gemma_model.engine.meter import Meter, Stopwatch
from gemma_model.engine.outcome import Outcome, PlanRunner
from gemma_model.engine.plan import Plan, Prefill, Waiting
from gemma_model.engine.scheduler import QueueFull, Scheduler
from gemma_model.engine.sequence import Name, Sequence, keys_of
from gemma_model.protocol import Generation, Listener, Observation, Scores, Step, Times, Totals
from gemma_wire import ContextLengthExceeded, InvalidRequest, Overloaded, Unavailable

log = logging.getLogger(__name__)
SCORED_TOKEN_COST = 6
"""Prompt tokens that run in the time of one whose log probability is wanted: see docs/engine.md."""


@dataclass
class _Job:
    """A request. Its choices are those that have not ended."""

    generation: Generation
    listen: Listener
    choices: dict[int, Choice]
    watch: Stopwatch
    prompt_scores: list[Scores] = field(default_factory=list)


News = list[tuple[Listener, Step]]


@dataclass(frozen=True)
class Load:
    """How busy the engine is; see ``EngineInfo``."""

    running: int
    waiting: int
    slots_used: int
    cache_tokens_used: int
    totals: Totals


class Loop:
    """Submit, cancel, step. All methods but ``step`` may be called from any thread.

    Args:
        runner: used by one thread at a time.
        scheduler: nobody else's.
        length: tokens of prompt and answer together.
        clock: seconds.
    """

    def __init__(
        self,
        runner: PlanRunner,
        scheduler: Scheduler,
        length: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner, self._scheduler, self._length = runner, scheduler, length
        self._meter = Meter(clock)
        self._jobs: dict[int, _Job] = {}
        self._cancelled: set[Name] = set()
        self._count, self._closing = 0, False
        self._changed = threading.Condition()  # holds its lock whoever touches anything above

    def load(self) -> Load:
        """A snapshot."""
        with self._changed:
            return Load(
                running=len(self._jobs) - self._scheduler.waiting,
                waiting=self._scheduler.waiting,
                slots_used=self._scheduler.running,
                cache_tokens_used=self._scheduler.stored,
                totals=self._meter.totals,
            )

    def observations(self) -> list[Observation]:
        """See ``Engine.observations``."""
        with self._changed:
            return self._meter.take()

    def submit(self, generation: Generation, listen: Listener) -> int:
        """Queue a generation and return its number; ``listen`` gets its steps from the engine's thread.

        Raises:
            Overloaded: when the queue is full.
            ContextLengthExceeded: when it can never fit a slot.
            InvalidRequest: when its choices can never all have a slot.
            Unavailable: when the engine is closed.
        """
        self._check(generation)
        seeded = _seeded(generation)
        choices = {index: Choice(seeded, index) for index in range(generation.n)}
        with self._changed:
            if self._closing:
                raise Unavailable("the engine is shutting down")
            number = self._count
            try:
                self._scheduler.submit(_sequences(number, generation))
            except QueueFull:
                message = f"{self._scheduler.waiting} requests are waiting already, try again later"
                raise Overloaded(message) from None
            self._count += 1
            self._jobs[number] = _Job(seeded, listen, choices, self._meter.submitted())
            self._changed.notify()
        return number

    def cancel(self, number: int, choice: int | None = None) -> None:
        """End a generation or one choice of it within one step; what has ended is left alone."""
        with self._changed:
            if (job := self._jobs.get(number)) is not None:
                self._cancelled.update((number, index) for index in job.choices if choice in (None, index))
                self._changed.notify()

    def step(self) -> bool:
        """Plan, run, commit; tell the listeners. Whether there was anything to do."""
        with self._changed:
            reaped = self._reap()
            plan = self._scheduler.plan(self._runner.encoded)
            choices = self._begin(plan)
        self._runner.retain(plan.needed)
        self._tell(reaped)
        if not plan:
            return bool(reaped)
        try:
            outcome = self._runner.run(plan, choices)
        except Exception as error:
            log.exception("a step failed")
            self._abort(error)
            return True
        self._commit(plan, _taken_in(outcome, choices))
        return True

    def drain(self) -> None:
        """Refuse what comes, and cancel all there is."""
        with self._changed:
            self._closing = True
            self._cancelled.update((number, i) for number, job in self._jobs.items() for i in job.choices)
            reaped = self._reap()
        self._runner.retain(())
        self._tell(reaped)

    def abandon(self, error: Exception) -> None:
        """Refuse what comes, and end all there is with an error; trusts nothing but the list of requests."""
        with self._changed:
            self._closing = True
            jobs = list(self._jobs.values())
            self._jobs.clear()
        reason = f"{type(error).__name__}: {error}"
        self._tell([(job.listen, Step(choice=i, error=reason)) for job in jobs for i in job.choices])

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

    def _check(self, generation: Generation) -> None:
        prompt, wanted = len(generation.prompt.token_ids), generation.max_tokens
        if not prompt or prompt + wanted > self._length:
            message = f"{prompt} prompt tokens and {wanted} new ones do not fit {self._length} tokens"
            raise ContextLengthExceeded(message, "max_tokens")
        if not 1 <= generation.n <= self._scheduler.slots:
            slots = self._scheduler.slots
            raise InvalidRequest(f"{generation.n} choices are asked for; at most {slots} fit at once", "n")

    def _reap(self) -> News:
        ended = [self._scheduler.cancel(name) for name in sorted(self._cancelled)]
        self._cancelled.clear()
        return [self._news(sequence, Outcome()) for sequence in ended if sequence is not None]

    def _begin(self, plan: Plan) -> dict[Name, Choice]:
        """The choices that a plan is about; some of their prompts begin with it."""
        prompts: list[Prefill | Waiting] = [*plan.prefills, *(plan.encode.prompts if plan.encode else ())]
        for prompt in prompts:
            job = self._jobs[prompt.names[0][0]]
            length = 0 if job.generation.prompt_logprobs is not None else len(job.generation.prompt.token_ids)
            self._meter.begun(job.watch, looked_up=length, found=prompt.start)
        return {name: self._jobs[name[0]].choices[name[1]] for name in plan.names}

    def _commit(self, plan: Plan, outcome: Outcome) -> None:
        with self._changed:
            for name, scores in outcome.prompt_scores.items():
                self._jobs[name[0]].prompt_scores += scores
            sequences = self._scheduler.commit(plan, outcome.tokens, outcome.failed)
            self._meter.stepped(len(outcome.tokens), bool(plan.decodes))
            news = [self._news(sequence, outcome) for sequence in sequences]
        self._tell(news)

    def _abort(self, error: Exception) -> None:
        self._runner.retain(())
        with self._changed:
            dropped = self._scheduler.abort()
            failed = dict.fromkeys((sequence.name for sequence in dropped), _describe(error))
            news = [self._news(sequence, Outcome(failed=failed)) for sequence in dropped]
        self._tell(news)

    def _news(self, sequence: Sequence, outcome: Outcome) -> tuple[Listener, Step]:
        """What a step means for a sequence: a new token, its end, or both."""
        (number, index), name = sequence.name, sequence.name
        job, prompt_scores = self._jobs[number], list[Scores]()
        if name in outcome.tokens and sequence.generated_length == 1:
            self._meter.answered(job.watch, len(job.generation.prompt.token_ids))
            prompt_scores, job.prompt_scores = job.prompt_scores, []
        return job.listen, Step(
            token_ids=(outcome.tokens[name],) if name in outcome.tokens else (),
            choice=index,
            scores=(outcome.scores[name],) if name in outcome.scores else (),
            prompt_scores=tuple(prompt_scores),
            finish=None if sequence.finish == "failed" else sequence.finish,
            error=outcome.failed.get(name),
            cached_tokens=sequence.reused_length if name in outcome.tokens else 0,
            times=self._end(sequence, job) if sequence.finish else None,
        )

    def _end(self, sequence: Sequence, job: _Job) -> Times:
        """A choice is over, and with the last one its job."""
        assert sequence.finish is not None
        number, index = sequence.name
        del job.choices[index]
        if not job.choices:
            del self._jobs[number]
        return self._meter.finished(job.watch, sequence.finish)

    def _tell(self, news: News) -> None:
        for listen, step in news:
            try:
                listen(step)
            except Exception:
                log.exception("a listener failed")


def _taken_in(outcome: Outcome, choices: Mapping[Name, Choice]) -> Outcome:
    """The choices know of their new tokens; where a constraint breaks over one, its choice has failed."""
    failed = dict(outcome.failed)
    for name, token_id in outcome.tokens.items():
        try:
            choices[name].take(token_id)
        except Exception as error:
            log.exception("the constraint of choice %d of request %d failed", name[1], name[0])
            failed[name] = _describe(error)
    tokens = {name: token_id for name, token_id in outcome.tokens.items() if name not in failed}
    return replace(outcome, tokens=tokens, failed=failed)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _sequences(number: int, generation: Generation) -> list[Sequence]:
    inputs = encoder_inputs(generation)
    spans = [(span.start, span.length, span.media.digest) for span in generation.prompt.spans]
    keys = keys_of(generation.prompt.token_ids, spans)
    if (kept_apart := (generation.variant, generation.cache_salt)) != (None, None):
        keys[0] = (*kept_apart, keys[0])  # a prefix that is reused begins with it
    return [
        Sequence(
            name=(number, index),
            keys=list(keys),
            max_tokens=generation.max_tokens,
            min_tokens=generation.min_tokens,
            stop_token_ids=generation.stop_token_ids,
            reuses=generation.prompt_logprobs is None,
            prompt_cost=1 if generation.prompt_logprobs is None else SCORED_TOKEN_COST,
            encoder_inputs=inputs,
        )
        for index in range(generation.n)
    ]


def _seeded(generation: Generation) -> Generation:
    """With a seed of its own where the caller gave none."""
    if generation.sampling.seed is not None:
        return generation
    return replace(generation, sampling=replace(generation.sampling, seed=secrets.randbits(63)))
