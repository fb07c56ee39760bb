"""The first request of our own: it reaches every part, and nothing it meets stops the start."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemma_model.checkpoint import open_checkpoint
from gemma_model.intake import Intake
from gemma_model.protocol import Generation, Listener, Step
from gemma_model.settings import Settings
from gemma_model.warmup import warm_up
from gemma_wire import ContextLengthExceeded


class FakeEngine:
    def __init__(self, last: Step | None) -> None:
        self.last, self.asked = last, list[Generation]()

    def submit(self, generation: Generation, listen: Listener) -> int:
        if self.last is None:
            raise ContextLengthExceeded("no room", "messages")
        self.asked.append(generation)
        listen(Step((1,)))
        listen(self.last)
        return 0


def warmed(folder: Path, last: Step | None) -> FakeEngine:
    checkpoint = open_checkpoint(folder, None)
    intake = Intake(checkpoint, Settings(checkpoint=folder))
    engine: Any = FakeEngine(last)
    try:
        warm_up(intake, engine, checkpoint.soft_tokens)
    finally:
        intake.close()
    fake: FakeEngine = engine
    return fake


def test_it_asks_about_all_that_the_model_takes(folder_of: Callable[[str], Path]) -> None:
    (generation,) = warmed(folder_of("quick"), Step(finish="length")).asked
    assert [span.media.modality for span in generation.prompt.spans] == ["image", "audio"]
    assert generation.sampling.temperature > 0


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (None, "warming up was refused: messages: no room"),
        (Step(error="broken"), "warming up failed: broken"),
    ],
)
def test_what_goes_wrong_is_said_and_the_start_goes_on(
    folder_of: Callable[[str], Path], last: Step | None, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        warmed(folder_of("quick"), last)
    assert says in caplog.text
