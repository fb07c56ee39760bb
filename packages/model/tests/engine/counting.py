"""The engine's loop around a model of ten lines, and what it is asked."""

from collections.abc import Collection, Mapping

from gemma_model.engine.choice import Choice
from gemma_model.engine.loop import Loop
from gemma_model.engine.outcome import Outcome
from gemma_model.engine.plan import Plan
from gemma_model.engine.scheduler import Scheduler
from gemma_model.engine.sequence import Key, Name
from gemma_model.engine.slots import Slots
from gemma_model.protocol import Generation, Prompt, Sampling, Step


class Counter:
    """A model whose next token is one more than the last, and as much further as there are choices before."""

    def __init__(self) -> None:
        self.broken = False
        self.refused = -1

        self.encoded: set[Key] = set()

    def retain(self, needed: Collection[Key]) -> None:
        self.encoded &= set(needed)

    def run(self, plan: Plan, choices: Mapping[Name, Choice]) -> Outcome:
        if self.broken:
            raise RuntimeError("out of memory")
        if plan.encode is not None:
            self.encoded.add(plan.encode.key)
        failed = {name: "no" for p in plan.prefills for name in p.names if name[0] == self.refused}
        ending = [name for p in plan.prefills if p.ends_prompt for name in p.names if name not in failed]
        tokens = {name: choices[name].generation.prompt.token_ids[-1] + 1 + name[1] for name in ending}
        return Outcome(tokens | {d.name: d.token_id + 1 for d in plan.decodes}, failed)


class Listener:
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __call__(self, step: Step) -> None:
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


def loop(slots: int = 2, max_queue: int = 4, clock: Clock | None = None) -> tuple[Loop, Counter]:
    model, slots_ = Counter(), Slots(slots, 100, 100)
    return Loop(model, Scheduler(slots_, max_queue, chunk=4), length=100, clock=clock or Clock()), model


def idle(engine: Loop) -> bool:
    load = engine.load()
    return (load.running, load.waiting, load.slots_used, load.cache_tokens_used) == (0, 0, 0, 0)


def generation(first: int = 1, max_tokens: int = 3, prompt: int = 1, **rest: object) -> Generation:
    ids = tuple(range(first - prompt + 1, first + 1))
    return Generation(Prompt(ids), Sampling(), max_tokens, **rest)  # type: ignore[arg-type]
