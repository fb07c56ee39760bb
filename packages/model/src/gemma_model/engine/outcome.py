"""What a step gives, and who makes it."""

from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gemma_model.engine.choice import Choice
from gemma_model.engine.plan import Plan
from gemma_model.engine.sequence import Key, Name
from gemma_model.protocol import Scores


@dataclass(frozen=True)
class Outcome:
    """What a step gave.

    Args:
        tokens: the new token of each sequence that the plan gives one, and that did not fail.
        failed: why a sequence could not be run; the others were. A prompt fails with all its forks.
        scores: of the new tokens of those who asked.
        prompt_scores: of those who asked, by the name of a prefill: of the tokens behind each that it ran.
    """

    tokens: Mapping[Name, int] = field(default_factory=dict)
    failed: Mapping[Name, str] = field(default_factory=dict)
    scores: Mapping[Name, Scores] = field(default_factory=dict)
    prompt_scores: Mapping[Name, list[Scores]] = field(default_factory=dict)


class PlanRunner(Protocol):
    """What makes tokens. It reads of a choice what the plan does not say, and changes nothing of it."""

    @property
    def encoded(self) -> Container[Key]:
        """The media whose soft tokens are there; what the last ``retain`` named stays among them."""

    def retain(self, needed: Collection[Key]) -> None:
        """Keep the soft tokens of these media; an encoder that is busy with another one stops."""

    def run(self, plan: Plan, choices: Mapping[Name, Choice]) -> Outcome:
        """Run every sequence of the plan; raise when that is impossible for all."""
