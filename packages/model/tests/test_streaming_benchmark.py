"""The benchmark of streams: its engine, and its client without a server."""

import asyncio
import queue
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from benchmarks import streaming
from benchmarks.paced_engine import LETTER, START_DIGITS, PacedEngine, repository
from benchmarks.streaming_client import Event, StreamReader
from tokenizers import Tokenizer

from gemma_model.engine_types import EngineOutput, EngineRequest, EngineSamplingParams, TokenizedPrompt
from gemma_model.settings import Settings
from gemma_wire.tensors import MODEL

NANO = Path(__file__).parents[3] / "models" / "gemma3n-nano"
RATE = 200


@pytest.fixture
def engine() -> Iterator[PacedEngine]:
    engine = PacedEngine(NANO, Settings())
    yield engine
    engine.close()


def request(tokens: int) -> EngineRequest:
    return EngineRequest(TokenizedPrompt((2,)), EngineSamplingParams(seed=RATE), tokens)


def test_tokens_come_at_the_rate_and_name_the_time_of_the_first(engine: PacedEngine) -> None:
    outputs: queue.SimpleQueue[tuple[float, EngineOutput]] = queue.SimpleQueue()
    before = time.monotonic()
    engine.submit(request(START_DIGITS + 5), lambda output: outputs.put((time.monotonic(), output)))
    got = [outputs.get(timeout=5) for _ in range(START_DIGITS + 5)]
    tokenizer = Tokenizer.from_file(str(NANO / "tokenizer.json"))
    text = "".join(tokenizer.id_to_token(output.token_ids[0]) or "" for _, output in got)
    start = int(text[:START_DIGITS]) / 1e6
    assert text[START_DIGITS:] == 5 * LETTER
    assert before < start < before + 1
    assert all(arrived >= start + place / RATE for place, (arrived, _) in enumerate(got))
    assert [output.finish for _, output in got] == [None] * (START_DIGITS + 4) + ["length"]
    assert engine.info().running == 0


def test_requests_of_one_rate_step_together(engine: PacedEngine) -> None:
    order: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(3):
        engine.submit(request(4), partial(lambda number, _: order.put(number), number))
    first = [order.get(timeout=5) for _ in range(9)]
    assert all(first.count(number) >= 2 for number in range(3))


def test_a_cancelled_request_ends(engine: PacedEngine) -> None:
    outputs: queue.SimpleQueue[EngineOutput] = queue.SimpleQueue()
    number = engine.submit(request(10**6), outputs.put)
    outputs.get(timeout=5)
    engine.cancel(number)
    while not (output := outputs.get(timeout=5)).last:
        pass
    assert output.finish == "cancelled"
    engine.cancel(number)
    assert engine.info().running == 0


def test_the_repository_differs_in_its_engine_alone(tmp_path: Path) -> None:
    written = repository(tmp_path) / MODEL
    served = Path(__file__).parents[3] / "packages/model/src/gemma_model/model_repository" / MODEL
    assert (written / "config.pbtxt").read_bytes() == (served / "config.pbtxt").read_bytes()
    model = (written / "1" / "model.py").read_text()
    compile(model, "model.py", "exec")
    assert "triton_backend.create_engine = PacedEngine" in model


def event(content: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % content.encode()


async def test_the_client_counts_tokens_and_delays() -> None:
    reader = StreamReader(b"")
    began = time.monotonic()
    start = began - 1.0
    digits = f"{round(start * 1e6):0{START_DIGITS}d}"
    sent = event("") + event(digits[:7]) + event(digits[7:]) + event("aaa") + b"data: [DONE]\n\n"
    for place in range(0, len(sent), 10):  # in pieces that end anywhere
        reader.data_received(sent[place : place + 10])
    await asyncio.wait_for(reader.finished, 1)
    assert [tokens for _, tokens in reader.events] == [7, 8, 3]
    delays = list(reader.delays(RATE, began, began + 60))
    assert len(delays) == START_DIGITS + 3
    last: Event = reader.events[-1]
    assert delays[-1] == pytest.approx(last.time - start - (START_DIGITS + 2) / RATE, abs=1e-5)


async def test_a_response_that_ends_early_is_an_error() -> None:
    reader = StreamReader(b"")
    reader.data_received(event("a"))
    reader.connection_lost(None)
    with pytest.raises(RuntimeError, match="ended early"):
        await reader.finished


def test_a_row_of_the_table() -> None:
    parts = {"sender": 100.0, "tritonserver": 50.0, "gateway": 200.0, "client": 10.0}
    one = streaming.Measurement(2, 20, 200, 100, 1.0, parts, (1.0, 2.0), {})
    assert streaming.row([one]) == "| 2 | 20 | 100% | 100 | 50 | 200 | 10 | 350 | 700 | 1.0 | 2.0 |"
