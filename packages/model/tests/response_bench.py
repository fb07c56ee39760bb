"""Responses without an engine or a client: engine outputs in, chunks out."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokenizers import Tokenizer

from gemma_model.completion_output import OutputOptions
from gemma_model.engine_types import EngineOutput, PositionLogprobs
from gemma_model.response import ResponseStream
from gemma_wire import Chunk, WireError

END_OF_TURN = 9


@dataclass
class FakeChannel:
    chunks: list[Chunk] = field(default_factory=list)
    failed: list[WireError] = field(default_factory=list)
    closed: bool = False

    def send(self, chunk: Chunk, *, last: bool) -> None:
        assert (chunk.usage is not None) == last
        self.chunks.append(chunk)

    def fail(self, error: WireError) -> None:
        self.failed.append(error)

    def close(self) -> None:
        self.closed = True

    def cancelled(self) -> bool:
        return False


@dataclass
class Bench:
    tokenizer: Tokenizer
    options: OutputOptions

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def steps(self, text: str, choice: int = 0, scored: bool = False) -> list[EngineOutput]:
        """A step for each token, and one for the end of turn."""
        ids = (*self.ids(text), END_OF_TURN)
        scores = [(PositionLogprobs(-float(i), ((i, -float(i)),)),) if scored else () for i in ids]
        said = [EngineOutput((i,), choice, score) for i, score in zip(ids, scores, strict=True)]
        return [*said[:-1], replace(said[-1], finish="stop")]

    def answer(self, steps: Sequence[EngineOutput], stream: bool = True, **options: Any) -> FakeChannel:
        channel = FakeChannel()
        answer = ResponseStream(channel, stream, replace(self.options, **options))
        for step in steps:
            if not answer.finished:
                answer.advance([step])
        return channel
