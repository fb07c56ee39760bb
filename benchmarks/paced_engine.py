"""An engine that computes nothing and produces tokens at a set rate, for `benchmarks.streaming`.

The model repository that ``repository`` writes runs the real Triton backend with this engine. Each token is
one character, and the first tokens of a choice spell the time at which its first token was due, so that a
client can compute the delay of every token.
"""

import heapq
import math
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from gemma_model.engine_types import EngineInfo, EngineOutput, EngineRequest, Observation, OutputCallback
from gemma_model.settings import Settings
from gemma_wire import Timings
from gemma_wire.tensors import MODEL

ROOT = Path(__file__).parents[1]
START_DIGITS = 15
"""Tokens that spell the time of the first one, in microseconds of ``time.monotonic``."""
LETTER = "a"
"""Every later token."""
WARM_UP_RATE = 1000
"""Tokens/s of a request without a rate."""
_BACKEND = f"""import sys

sys.path.insert(0, {str(ROOT)!r})

from benchmarks.paced_engine import PacedEngine

from gemma_model import triton_backend
from gemma_model.triton_backend import TritonPythonModel

triton_backend.create_engine = PacedEngine
"""


def repository(folder: Path) -> Path:
    """Writes a model repository with the served configuration and this engine."""
    shutil.copytree(ROOT / "packages/model/src/gemma_model/model_repository" / MODEL, folder / MODEL)
    (folder / MODEL / "1" / "model.py").write_text(_BACKEND, encoding="utf-8")
    return folder


@dataclass(order=True)
class _Stream:
    """One request; the streams are ordered by the time of their next token."""

    due: float
    number: int
    start: float = field(compare=False)
    rate: int = field(compare=False)
    request: EngineRequest = field(compare=False)
    on_output: OutputCallback = field(compare=False)
    sent: int = field(default=0, compare=False)


class PacedEngine:
    """An ``Engine`` whose requests name their tokens/s by their ``seed``. Requests of one rate step together.

    Args:
        folder: the checkpoint; only its tokenizer is read.
        settings: of the engine.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._ids = {char: _token_id(tokenizer, char) for char in f"0123456789{LETTER}"}
        self._slots = settings.max_num_seqs
        self._streams: list[_Stream] = []
        self._cancelled: set[int] = set()
        self._count, self._closing = 0, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: EngineRequest, on_output: OutputCallback) -> int:
        """See ``Engine.submit``."""
        rate = request.sampling.seed or WARM_UP_RATE
        start = math.ceil(time.monotonic() * rate + 1) / rate
        with self._changed:
            number, self._count = self._count, self._count + 1
            heapq.heappush(self._streams, _Stream(start, number, start, rate, request, on_output))
            self._changed.notify()
        return number

    def cancel(self, request_id: int, choice: int | None = None) -> None:  # noqa: ARG002
        """See ``Engine.cancel``; a request has one choice."""
        with self._changed:
            if any(stream.number == request_id for stream in self._streams):
                self._cancelled.add(request_id)
                self._changed.notify()

    def info(self) -> EngineInfo:
        """See ``Engine.info``."""
        with self._changed:
            return EngineInfo("paced", "none", "none", 0, self._slots, len(self._streams), 0)

    def observations(self) -> Sequence[Observation]:
        """None."""
        return ()

    def close(self) -> None:
        """See ``Engine.close``."""
        with self._changed:
            self._closing = True
            self._cancelled = {stream.number for stream in self._streams}
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                outputs = self._cancel() + self._due()
                if not outputs:
                    if self._closing:
                        return
                    self._changed.wait(self._streams[0].due - time.monotonic() if self._streams else None)
            for on_output, output in outputs:
                on_output(output)

    def _cancel(self) -> list[tuple[OutputCallback, EngineOutput]]:
        ended = [stream for stream in self._streams if stream.number in self._cancelled]
        if ended:
            self._streams = [stream for stream in self._streams if stream.number not in self._cancelled]
            heapq.heapify(self._streams)
        self._cancelled.clear()
        return [(stream.on_output, EngineOutput(finish="cancelled")) for stream in ended]

    def _due(self) -> list[tuple[OutputCallback, EngineOutput]]:
        """The tokens that are due, one of each stream at most."""
        now, outputs, later = time.monotonic(), [], []
        while self._streams and self._streams[0].due <= now:
            stream = heapq.heappop(self._streams)
            outputs.append((stream.on_output, self._next(stream)))
            if stream.sent < stream.request.max_tokens:
                later.append(stream)
        for stream in later:
            heapq.heappush(self._streams, stream)
        return outputs

    def _next(self, stream: _Stream) -> EngineOutput:
        start = f"{round(stream.start * 1e6):0{START_DIGITS}d}"
        char = start[stream.sent] if stream.sent < START_DIGITS else LETTER
        stream.sent += 1
        stream.due = stream.start + stream.sent / stream.rate
        if stream.sent < stream.request.max_tokens:
            return EngineOutput((self._ids[char],))
        timings = Timings(queued=0, prefill=0, decode=stream.sent / stream.rate)
        return EngineOutput((self._ids[char],), finish="length", timings=timings)


def _token_id(tokenizer: Tokenizer, char: str) -> int:
    token_id = tokenizer.token_to_id(char)
    if token_id is None:
        raise ValueError(f"the tokenizer has no token {char!r}")
    return token_id
