"""How running sequences get their next logits: by the decoder as it is, or by replaying recorded steps.

Gemma 3n's layers are many small operations. On a GPU the host takes longer to start them than they take to
run; a graph of a whole step is started at once. What is recorded is not trusted before it has said what the
decoder says.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from gemma_model.engine.memory import GIB
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.model import FixedShapeStep, Model

log = logging.getLogger(__name__)

Step = Callable[[Sequence[int], Sequence[int], Sequence[int]], Tensor]
"""Ids of new tokens, their slots, their positions → logits ``[rows, vocab]`` fp32, which are the caller's."""
Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Runs a step, and returns what repeats it; the result lies where the next repetition puts its own."""

FEWEST_COLUMNS = 512
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2}
"""By how much logits may differ, as a share of their size. Rounding to bf16 adds up through all layers; a
wrong row, layer or slot makes them others altogether; what is less wrong is for the tests to find."""
RUNS_BEFORE = 3
"""What NVIDIA's and PyTorch's libraries set up at first must not be captured."""


def buckets(largest: int, smallest: int, factor: int) -> list[int]:
    """``smallest``, each ``factor`` times the one before, and the largest; ascending."""
    sizes = []
    while smallest < largest:
        sizes.append(smallest)
        smallest *= factor
    return [*sizes, largest]


class Direct:
    """A step by the decoder as it is: on a CPU its kernels if it has them, else PyTorch's own operations."""

    def __init__(self, decoder: Model, cache: KVCache) -> None:
        self.decoder, self.cache = decoder, cache

    def __call__(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """See ``Step``."""
        return self.decoder.decode(ids, slots, positions, self.cache)


class Recorded:
    """A step by replaying what was recorded for so many rows and columns, or the next larger number.

    Args:
        direct: what it has to equal.
        capture: records.
        compiled: run the layers compiled by ``torch.compile``.

    Raises:
        ValueError: when a recorded step does not say what the decoder says.
    """

    def __init__(self, direct: Direct, capture: Capture, compiled: bool) -> None:
        self._direct, self._compiled = direct, compiled
        self._rows = buckets(direct.cache.slots, 1, 2)
        self._columns = buckets(direct.cache.length, FEWEST_COLUMNS, 4)
        self._steps: dict[tuple[int, int], tuple[FixedShapeStep, Callable[[], Tensor]]] = {}
        sizes = list(product(reversed(self._rows), reversed(self._columns)))  # the small reuse memory
        for number, (rows, columns) in enumerate(sizes, 1):
            began, size = time.monotonic(), f"step {number} of {len(sizes)}: {rows} rows, {columns} columns"
            try:
                difference = self._add(rows, columns, capture)
            except torch.OutOfMemoryError:
                self._steps.pop((rows, columns), None)
                log.warning("%s: too large for the memory there is, so it is not recorded", size)
            else:
                took = time.monotonic() - began
                log.info("recorded %s, %.1f s, %.2g off the decoder's logits", size, took, difference)

    def __call__(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """See ``Step``."""
        rows = next(size for size in self._rows if size >= len(ids))
        columns = next(size for size in self._columns if size > max(positions))
        if (rows, columns) not in self._steps:
            return self._direct(ids, slots, positions)
        step, replay = self._steps[rows, columns]
        step.fill(ids, slots, positions)
        return replay()[: len(ids)].clone()  # the next replay of any step may write there

    def _add(self, rows: int, columns: int, capture: Capture) -> float:
        """Record a step; the mean difference of an example's logits, as a share of their mean size."""
        example = _example(rows, columns)
        step = self._direct.decoder.static_step(self._direct.cache, rows, columns, self._compiled)
        step.fill(*example)
        self._steps[rows, columns] = step, capture(step.run)
        wanted, given = self._direct(*example), self(*example)
        difference = float((given - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())
        if not difference <= TOLERANCE[self._direct.decoder.dtype]:  # nor NaN
            raise ValueError(f"{rows} rows, {columns} columns are {difference:.2g} off the decoder's logits")
        return difference


class CudaGraphs:
    """Captures steps as CUDA graphs, all in one pool of memory: one runs at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """See ``Capture``. What is done only at first (compiling, say) is done before the capture."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(RUNS_BEFORE):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = step()

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay


def recorded(
    directs: Mapping[str | None, Direct], capture: Callable[[], Capture], ways: Mapping[str, bool]
) -> dict[str | None, Step]:
    """A step of each decoder, recorded in the first way that works; in none, it is as it was.

    Args:
        directs: decoders by name, all with one cache that nobody uses yet.
        capture: makes what records the steps of one of them.
        ways: whether layers are compiled, by what to call that way.
    """
    layers = next(iter(directs.values())).cache.layers
    for layer in layers:
        layer.normal_()  # so that it tells if a step reads where it should not
    try:
        return {name: _recorded(direct, capture, ways) for name, direct in directs.items()}
    finally:
        for layer in layers:
            layer.zero_()


def _recorded(direct: Direct, capture: Callable[[], Capture], ways: Mapping[str, bool]) -> Step:
    for way, compiled in ways.items():
        began, free = time.monotonic(), _free_memory()
        try:
            step = Recorded(direct, capture(), compiled)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            log.warning("recorded steps with %s are not used: %s: %s", way, type(error).__name__, reason)
            log.debug("what went wrong", exc_info=error)
        else:
            took, size = time.monotonic() - began, (free - _free_memory()) / GIB
            log.info("recorded steps with %s after %.0f s, %.2f GiB", way, took, size)
            return step
    log.warning("decoding goes on without recorded steps, slower than it could be")
    return direct


def _free_memory() -> int:
    """Bytes of the GPU, if there is one."""
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0


def _example(rows: int, columns: int) -> tuple[list[int], list[int], list[int]]:
    """Rows in all slots, backwards, from the last column on down."""
    places = range(rows)
    positions = [columns - 1 - row * (columns // rows) for row in places]
    return [2 + row % 64 for row in places], [*reversed(places)], positions
