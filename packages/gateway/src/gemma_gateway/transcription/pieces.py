"""The pieces of a recording as calls to the engine, several at a time, with their results in order."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final, NamedTuple, TypeVar

import numpy as np

import gemma_wire as wire
from gemma_gateway.errors import TooManyRequests
from gemma_gateway.generation import Chunks, EngineCall
from gemma_gateway.media.recording import Samples, to_wav
from gemma_gateway.media.segmentation import AudioPiece

T = TypeVar("T")
MAX_TOKENS: Final = 1024
"""Of one piece: 34 per second of 30, far more than anyone says. It ends a model that repeats itself."""
BUSY_SECONDS: Final = 1.0
"""After this time a piece that was refused because the queue was full is sent again."""


class PieceCall(NamedTuple):
    """What is the same in all calls of a recording.

    Args:
        text: the instruction.
        model: value of ``wire.Options.model``.
        temperature: of sampling.
        details: request token ids and log probabilities.
    """

    text: str
    model: str | None
    temperature: float
    details: bool

    def to_engine(self, samples: Samples) -> EngineCall:
        """The call for a piece."""
        request = wire.Request(
            messages=(wire.Message(role="user", content=(wire.TextPart(text=self.text), wire.AudioPart())),),
            audio=(to_wav(samples),),
            max_tokens=MAX_TOKENS,
            temperature=self.temperature,
            stream=True,
            options=wire.Options(
                model=self.model, logprobs=0 if self.details else None, return_token_ids=self.details
            ),
        )
        return EngineCall(request, {"audio": "file", "audio[0]": "file", "messages": "prompt"}, "prompt")


class PieceChunk(NamedTuple):
    """A chunk of the engine, and the number of the piece that it belongs to."""

    number: int
    chunk: wire.Chunk


async def generate_pieces(
    pieces: Sequence[AudioPiece],
    samples: Samples,
    call: PieceCall,
    generate: Callable[[EngineCall], Chunks],
    concurrent: int,
) -> AsyncGenerator[PieceChunk, None]:
    """The engine's chunks for all pieces, in the order of the pieces. Closing it cancels all of them.

    Args:
        pieces: of the recording.
        samples: of the recording.
        call: what is asked about each piece.
        generate: calls the engine.
        concurrent: so many pieces are with the engine at the same time.
    """
    accepted = asyncio.Event()

    async def chunks(piece: AudioPiece) -> AsyncGenerator[wire.Chunk, None]:
        engine_call = call.to_engine(np.asarray(samples[piece.start : piece.end]))
        async with aclosing(_with_retries(lambda: generate(engine_call), accepted)) as source:
            async for chunk in source:
                accepted.set()
                yield chunk

    sources = [partial(chunks, piece) for piece in pieces]
    async with aclosing(_in_order(sources, concurrent)) as ordered:
        async for number, chunk in ordered:
            yield PieceChunk(number, chunk)


async def _with_retries(generate: Callable[[], Chunks], accepted: asyncio.Event) -> Chunks:
    """The chunks; a full queue is waited for, once the engine has accepted some piece of the recording."""
    while True:
        try:
            async with aclosing(generate()) as chunks:
                async for chunk in chunks:
                    yield chunk
                return
        except TooManyRequests:
            if not accepted.is_set():
                raise
        await asyncio.sleep(BUSY_SECONDS)


async def _in_order(
    sources: Sequence[Callable[[], AsyncGenerator[T, None]]], concurrent: int
) -> AsyncGenerator[tuple[int, T], None]:
    """All items of the first source, then those of the second, and so on; each with its source's number.

    Args:
        sources: are called when their turn comes.
        concurrent: so many run at the same time; their items wait here.
    """
    free = asyncio.Semaphore(concurrent)
    queues: list[asyncio.Queue[tuple[T] | Exception | None]] = [asyncio.Queue() for _ in sources]

    async def pump(number: int) -> None:
        async with free:
            try:
                async with aclosing(sources[number]()) as items:
                    async for item in items:
                        queues[number].put_nowait((item,))
                queues[number].put_nowait(None)
            except Exception as error:  # raised by the consumer below
                queues[number].put_nowait(error)

    tasks = [asyncio.create_task(pump(number)) for number in range(len(sources))]
    try:
        for number, queue in enumerate(queues):
            while (entry := await queue.get()) is not None:
                if isinstance(entry, Exception):
                    raise entry
                yield number, entry[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
