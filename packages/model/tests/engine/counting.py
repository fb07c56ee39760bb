"""The engine with a model of ten lines, and requests to it."""

import time
from collections.abc import Callable, Collection, Mapping

from gemma_model.engine.engine import NativeEngine
from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.prefix_cache import PrefixCache
from gemma_model.engine.scheduler import Scheduler
from gemma_model.engine.sequence import MediaKey, SeqId
from gemma_model.engine.step_plan import StepPlan
from gemma_model.engine.step_result import StepResult, StepRunner
from gemma_model.engine_types import (
    EngineInfo,
    EngineOutput,
    EngineRequest,
    EngineSamplingParams,
    TokenizedPrompt,
)
from gemma_model.sampling.sampling_state import SamplingState


class Counter:
    """A model whose next token is one more than the last, and as much further as there are choices before."""

    def __init__(self) -> None:
        self.broken = False
        self.refused = -1

        self.encoded: set[MediaKey] = set()

    def retain(self, needed: Collection[MediaKey]) -> None:
        self.encoded &= set(needed)

    def run(self, plan: StepPlan, states: Mapping[SeqId, SamplingState]) -> StepResult:
        if self.broken:
            raise RuntimeError("out of memory")
        if plan.encode is not None:
            self.encoded.add(plan.encode.key)
        failed = {seq_id: "no" for p in plan.prefills for seq_id in p.seq_ids if seq_id[0] == self.refused}
        ending = [
            seq_id for p in plan.prefills if p.ends_prompt for seq_id in p.seq_ids if seq_id not in failed
        ]
        tokens = {seq_id: [states[seq_id].request.prompt.token_ids[-1] + 1 + seq_id[1]] for seq_id in ending}
        return StepResult(tokens | {d.seq_id: [d.token_id + 1] for d in plan.decodes}, failed)


class Listener:
    def __init__(self) -> None:
        self.steps: list[EngineOutput] = []

    def __call__(self, step: EngineOutput) -> None:
        assert not any(before.last and before.choice == step.choice for before in self.steps)
        self.steps.append(step)

    @property
    def tokens(self) -> list[int]:
        return self.choice(0)

    def choice(self, index: int) -> list[int]:
        return [token for step in self.steps if step.choice == index for token in step.token_ids]

    def ends(self) -> dict[int, str | None]:
        return {step.choice: step.finish or step.error for step in self.steps if step.last}


class Clock:
    """Goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_engine(
    slots: int = 2, max_queue: int = 4, clock: Clock | None = None
) -> tuple[NativeEngine, Counter]:
    model, cache = Counter(), PrefixCache(100, ring=100, block_tokens=1)
    scheduler = Scheduler(KVSlots(slots), cache, max_queue, chunk=4)
    return native_engine(model, scheduler, 100, clock=clock or Clock()), model


def native_engine(
    runner: StepRunner, scheduler: Scheduler, length: int, clock: Callable[[], float] = time.monotonic
) -> NativeEngine:
    """An engine without a thread."""
    info = EngineInfo("native", "cpu", "float32", 0, scheduler.slots, running=0, waiting=0)
    return NativeEngine(runner, scheduler, info, length, clock=clock)


def idle(engine: NativeEngine) -> bool:
    load = engine.info()
    return (load.running, load.waiting, load.slots_used, load.cache_tokens_used) == (0, 0, 0, 0)


def make_request(first: int = 1, max_tokens: int = 3, prompt: int = 1, **rest: object) -> EngineRequest:
    ids = tuple(range(first - prompt + 1, first + 1))
    return EngineRequest(TokenizedPrompt(ids), EngineSamplingParams(), max_tokens, **rest)  # type: ignore[arg-type]
