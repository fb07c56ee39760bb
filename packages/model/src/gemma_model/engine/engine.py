"""The native engine: a thread that plans, runs and commits steps while there are requests."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from gemma_model.engine.drafts.drafter import Checked, Drafter
from gemma_model.engine.drafts.speculation import Speculation
from gemma_model.engine.request_state import RequestState, make_sequences, with_seed
from gemma_model.engine.scheduler import QueueFull, Scheduler
from gemma_model.engine.sequence import SeqId, Sequence
from gemma_model.engine.stats import EngineStats
from gemma_model.engine.step_outputs import Outputs, append_tokens, each_token, report
from gemma_model.engine.step_plan import Prefill, StepPlan, WaitingPrompt
from gemma_model.engine.step_result import StepResult, StepRunner, error_message
from gemma_model.engine_types import (
    EngineInfo,
    EngineOutput,
    EngineRequest,
    Observation,
    OutputCallback,
    PositionLogprobs,
)
from gemma_model.sampling.sampling_state import SamplingState
from gemma_wire import ContextLengthExceeded, InvalidRequest, Overloaded, Unavailable

log = logging.getLogger(__name__)


class Closeable(Protocol):
    """What an engine closes after its thread has ended."""

    def close(self) -> None:
        """Return when no thread is left."""


class NativeEngine:
    """An ``Engine`` over our own model. Requests come and go between steps.

    All methods except ``run_forever`` and ``step`` may be called from any thread.

    Args:
        runner: used by one thread at a time.
        scheduler: used by this engine alone.
        info: what ``info`` returns of the device and the model.
        length: maximum tokens of prompt and output together.
        speculation: drafts for the steps; ``None``: there are none.
        resources: closed with the engine.
        clock: seconds.
    """

    def __init__(
        self,
        runner: StepRunner,
        scheduler: Scheduler,
        info: EngineInfo,
        length: int,
        speculation: Speculation | None = None,
        resources: Iterable[Closeable] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner, self._scheduler, self._info, self._length = runner, scheduler, info, length
        self._speculation = speculation or Speculation()
        self._resources, self._stats = tuple(resources), EngineStats(clock)
        self._requests: dict[int, RequestState] = {}
        self._cancelled: set[SeqId] = set()
        self._clock, self._count, self._closing = clock, 0, False
        self._failure: str | None = None
        self._changed = threading.Condition()  # its lock protects everything above
        self.thread: threading.Thread | None = None
        """The thread that calls ``run_forever``."""

    def info(self) -> EngineInfo:
        """See ``Engine.info``."""
        with self._changed:
            return replace(
                self._info,
                running=len(self._requests) - self._scheduler.waiting,
                waiting=self._scheduler.waiting,
                slots_used=self._scheduler.running,
                cache_tokens_used=self._scheduler.stored,
                prefix_cache_tokens_used=self._scheduler.prefix_cached,
                totals=self._stats.totals,
                failure=self._failure,
            )

    def observations(self) -> list[Observation]:
        """See ``Engine.observations``."""
        with self._changed:
            return self._stats.take_observations()

    def submit(self, request: EngineRequest, on_output: OutputCallback) -> int:
        """See ``Engine.submit``.

        Raises:
            Overloaded: the queue is full.
            ContextLengthExceeded: the request can never fit a slot.
            InvalidRequest: it has more choices than there are slots.
            Unavailable: the engine is closed.
        """
        self._check(request)
        request = with_seed(request)
        choices = {index: SamplingState(request, index) for index in range(request.n)}
        with self._changed:
            if self._closing:
                raise Unavailable("the engine is shutting down")
            request_id = self._count
            try:
                self._scheduler.submit(make_sequences(request_id, request))
            except QueueFull:
                message = f"{self._scheduler.waiting} requests are waiting already, try again later"
                raise Overloaded(message) from None
            self._count += 1
            timer = self._stats.start_timer()
            self._requests[request_id] = RequestState(request, on_output, timer, choices)
            self._changed.notify()
        return request_id

    def cancel(self, request_id: int, choice: int | None = None) -> None:
        """See ``Engine.cancel``."""
        with self._changed:
            if (state := self._requests.get(request_id)) is not None:
                self._cancelled.update((request_id, i) for i in state.choices if choice in (None, i))
                self._changed.notify()

    def close(self) -> None:
        """Cancel everything, and return when no thread is left."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self.thread is not None:
            self.thread.join()
        for resource in self._resources:
            resource.close()

    def run_forever(self) -> None:
        """Run steps until the engine is closed or fails."""
        try:
            while self.wait():
                self.step()
            self.cancel_all()
        except Exception as error:
            log.exception("the engine has stopped working")
            self._fail(error)

    def wait(self) -> bool:
        """Sleep until there is something to do; false if the engine is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._cancelled or self._requests)
            return not self._closing

    def step(self) -> bool:
        """Plan, run, commit, and report the outputs; whether there was anything to do."""
        with self._changed:
            cancelled = self._end_cancelled()
            plan = self._scheduler.plan(self._runner.encoded)
            states = self._start(plan)
            drafters = self._drafters(plan)
        self._runner.retain(plan.needed)
        report(cancelled)
        if not plan:
            return bool(cancelled)
        began = self._clock()
        try:
            plan = self._speculation.extend(plan, states, drafters)
            result = self._runner.run(plan, states)
        except Exception as error:
            log.exception("a step failed")
            self._abort(error)
            return True
        self._speculation.measure(plan, self._clock() - began)
        result = append_tokens(result, states)
        self._commit(plan, result, self._speculation.learn(result.tokens, drafters))
        return True

    def cancel_all(self) -> None:
        """Refuse new requests, and cancel all there are."""
        with self._changed:
            self._closing = True
            self._cancelled.update((number, i) for number, own in self._requests.items() for i in own.choices)
            cancelled = self._end_cancelled()
        self._runner.retain(())
        report(cancelled)

    def _fail(self, error: Exception) -> None:
        """Refuse new requests, and end all there are with an error; uses nothing but their list."""
        with self._changed:
            self._closing, self._failure = True, error_message(error)
            requests = list(self._requests.values())
            self._requests.clear()
        output = EngineOutput(error=self._failure)
        report([(own.on_output, replace(output, choice=i)) for own in requests for i in own.choices])

    def _check(self, request: EngineRequest) -> None:
        prompt, wanted = len(request.prompt.token_ids), request.max_tokens
        if not prompt or prompt + wanted > self._length:
            message = f"{prompt} prompt tokens and {wanted} new ones do not fit {self._length} tokens"
            raise ContextLengthExceeded(message, "max_tokens")
        if not 1 <= request.n <= self._scheduler.slots:
            slots = self._scheduler.slots
            raise InvalidRequest(f"{request.n} choices were requested; at most {slots} can run at once", "n")

    def _end_cancelled(self) -> Outputs:
        ended = [self._scheduler.cancel(seq_id) for seq_id in sorted(self._cancelled)]
        self._cancelled.clear()
        return [self._end(sequence) for sequence in ended if sequence is not None]

    def _start(self, plan: StepPlan) -> dict[SeqId, SamplingState]:
        """The sampling states of a plan's sequences; some of their prompts start with it."""
        prompts: list[Prefill | WaitingPrompt] = [
            *plan.prefills,
            *(plan.encode.prompts if plan.encode else ()),
        ]
        for prompt in prompts:
            self._stats.prefill_started(self._requests[prompt.seq_ids[0][0]].timer)
        return {(number, i): self._requests[number].choices[i] for number, i in plan.seq_ids}

    def _drafters(self, plan: StepPlan) -> dict[SeqId, Drafter]:
        """The drafters of a plan's sequences, if there are drafts.

        A drafter is made when its sequence first runs: it has an index of the prompt, 5 MB for 32,768 tokens,
        and waiting requests are many more than running ones.
        """
        found: dict[SeqId, Drafter] = {}
        for request_id, index in plan.seq_ids:
            own = self._requests[request_id]
            if index not in own.drafters and (made := self._speculation.drafter(own.choices[index])):
                own.drafters[index] = made
            if (drafter := own.drafters.get(index)) is not None:
                found[request_id, index] = drafter
        return found

    def _commit(self, plan: StepPlan, result: StepResult, checked: Iterable[Checked]) -> None:
        with self._changed:
            for one in checked:
                self._stats.draft_checked(one)
            for (number, _), logprobs in result.prompt_logprobs.items():
                self._requests[number].prompt_logprobs += logprobs
            sequences = self._scheduler.commit(plan, result.tokens, result.failed)
            self._stats.step_done(sum(map(len, result.tokens.values())), bool(plan.decodes))
            outputs = [output for sequence in sequences for output in self._outputs(sequence, result)]
        report(outputs)

    def _abort(self, error: Exception) -> None:
        """End all running requests after a step that failed."""
        self._runner.retain(())
        with self._changed:
            dropped = self._scheduler.abort()
            failed = dict.fromkeys((sequence.seq_id for sequence in dropped), error_message(error))
            outputs = [self._end(sequence, failed[sequence.seq_id]) for sequence in dropped]
        report(outputs)

    def _outputs(self, sequence: Sequence, result: StepResult) -> Outputs:
        """The outputs of a sequence after a step: one for each new token, as without drafts, and its end."""
        seq_id = sequence.seq_id
        own, token_ids = self._requests[seq_id[0]], result.tokens.get(seq_id, ())
        drafter = own.drafters.get(seq_id[1])
        accepted, rejected = drafter.prediction_tokens if drafter else (0, 0)
        outputs = [
            EngineOutput(
                (token_id,),
                seq_id[1],
                logprobs,
                cached_tokens=sequence.reused_length,
                accepted_prediction_tokens=accepted,
                rejected_prediction_tokens=rejected,
            )
            for token_id, logprobs in zip(token_ids, each_token(result.logprobs.get(seq_id)), strict=False)
        ]
        if outputs and sequence.generated_length == len(token_ids):
            outputs[0] = replace(outputs[0], prompt_logprobs=self._first_token(sequence, own))
        if sequence.finish == "failed":
            return [(own.on_output, output) for output in outputs] + [
                self._end(sequence, result.failed[seq_id])
            ]
        if sequence.finish:
            _, last = self._end(sequence)
            outputs[-1] = replace(outputs[-1], finish=last.finish, timings=last.timings)
        return [(own.on_output, output) for output in outputs]

    def _first_token(self, sequence: Sequence, own: RequestState) -> tuple[PositionLogprobs, ...]:
        """A choice has its first token. Returns the log probabilities of its prompt, for the first choice."""
        looked_up, cached = sequence.use_prefix_cache, sequence.reused_length
        self._stats.first_token(own.timer, sequence.prompt_length, looked_up, cached)
        prompt_logprobs, own.prompt_logprobs = tuple(own.prompt_logprobs), []
        return prompt_logprobs

    def _end(self, sequence: Sequence, error: str | None = None) -> tuple[OutputCallback, EngineOutput]:
        """Remove a choice, and its request with the last one; the output that says so."""
        assert sequence.finish is not None
        request_id, index = sequence.seq_id
        own = self._requests[request_id]
        del own.choices[index]
        own.drafters.pop(index, None)
        if not own.choices:
            del self._requests[request_id]
        finish = None if sequence.finish == "failed" else sequence.finish
        timings = self._stats.choice_finished(own.timer, sequence.finish)
        return own.on_output, EngineOutput(choice=index, finish=finish, error=error, timings=timings)
