"""The first request of our own: it reaches every part, and nothing it meets stops the start."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemma_model.checkpoint import open_checkpoint
from gemma_model.engine_types import EngineOutput, EngineRequest, OutputCallback
from gemma_model.request_processor import RequestProcessor
from gemma_model.settings import Settings
from gemma_model.warmup import warm_up
from gemma_wire import ContextLengthExceeded


class FakeEngine:
    def __init__(self, last: EngineOutput | None) -> None:
        self.last, self.asked = last, list[EngineRequest]()

    def submit(self, engine_request: EngineRequest, listen: OutputCallback) -> int:
        if self.last is None:
            raise ContextLengthExceeded("no room", "messages")
        self.asked.append(engine_request)
        listen(EngineOutput((1,)))
        listen(self.last)
        return 0


def warmed(folder: Path, last: EngineOutput | None) -> FakeEngine:
    checkpoint = open_checkpoint(folder, None)
    processor = RequestProcessor(checkpoint, Settings(checkpoint=folder))
    engine: Any = FakeEngine(last)
    try:
        warm_up(processor, engine, checkpoint.soft_tokens)
    finally:
        processor.close()
    fake: FakeEngine = engine
    return fake


def test_it_asks_about_all_that_the_model_takes(folder_of: Callable[[str], Path]) -> None:
    (engine_request,) = warmed(folder_of("quick"), EngineOutput(finish="length")).asked
    assert [span.media.modality for span in engine_request.prompt.spans] == ["image", "audio"]
    assert engine_request.sampling.temperature > 0


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (None, "warming up was refused: messages: no room"),
        (EngineOutput(error="broken"), "warming up failed: broken"),
    ],
)
def test_a_failed_warmup_is_logged_and_the_start_continues(
    folder_of: Callable[[str], Path], last: EngineOutput | None, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        warmed(folder_of("quick"), last)
    assert says in caplog.text
