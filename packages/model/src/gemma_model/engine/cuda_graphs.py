"""Decode steps: run by the decoder, or replayed from CUDA graphs.

Gemma 3n's layers consist of many small operations. On a GPU, the host takes longer to start them than they
take to run; a graph of a complete step is started at once. A captured step is used only after it has computed
the same logits as the decoder.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from gemma_model.engine.kv_cache_memory import GIB
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.model import FixedShapeStep, Model

log = logging.getLogger(__name__)

DecodeStep = Callable[[Sequence[int], Sequence[int], Sequence[int]], Tensor]
"""Ids of new tokens, their slots, their positions → logits ``[rows, vocab]`` fp32, owned by the caller."""
Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Captures a step, and returns what replays it; each replay overwrites the result of the last one."""

MIN_COLUMNS = 512
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2}
"""Maximum difference of logits, relative to their size. Rounding to bf16 adds up through all layers; a wrong
row, layer or slot gives completely different logits; smaller errors are for the tests to find."""
WARMUP_RUNS = 3
"""Runs before a capture: what NVIDIA's and PyTorch's libraries set up at first must not be captured."""


def buckets(largest: int, smallest: int, factor: int) -> list[int]:
    """``smallest``, each ``factor`` times the one before, and the largest; ascending."""
    sizes = []
    while smallest < largest:
        sizes.append(smallest)
        smallest *= factor
    return [*sizes, largest]


class EagerStep:
    """A step that the decoder runs, with the CPU kernels if it has them, else with PyTorch's operations."""

    def __init__(self, decoder: Model, cache: KVCache) -> None:
        self.decoder, self.cache = decoder, cache

    def __call__(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """See ``DecodeStep``."""
        return self.decoder.decode(ids, slots, positions, self.cache)


class GraphedStep:
    """A step that replays the graph of the same or the next larger number of rows and KV columns.

    Args:
        eager: computes the expected logits, and runs what has no graph.
        capture: captures a graph.
        compiled: run the layers compiled by ``torch.compile``.

    Raises:
        ValueError: a captured step does not compute the decoder's logits.
    """

    def __init__(self, eager: EagerStep, capture: Capture, compiled: bool) -> None:
        self._eager, self._compiled = eager, compiled
        self._rows = buckets(eager.cache.slots, 1, 2)
        self._columns = buckets(eager.cache.length, MIN_COLUMNS, 4)
        self._graphs: dict[tuple[int, int], tuple[FixedShapeStep, Callable[[], Tensor]]] = {}
        sizes = list(product(reversed(self._rows), reversed(self._columns)))  # the small reuse memory
        for number, (rows, columns) in enumerate(sizes, 1):
            began, size = time.monotonic(), f"step {number} of {len(sizes)}: {rows} rows, {columns} columns"
            try:
                difference = self._add(rows, columns, capture)
            except torch.OutOfMemoryError:
                self._graphs.pop((rows, columns), None)
                log.warning("%s: does not fit the memory, so it is not captured", size)
            else:
                took = time.monotonic() - began
                log.info("captured %s, %.1f s, %.2g off the decoder's logits", size, took, difference)

    def __call__(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """See ``DecodeStep``."""
        rows = next((size for size in self._rows if size >= len(ids)), 0)  # drafts may need more than any has
        columns = next(size for size in self._columns if size > max(positions))
        if (rows, columns) not in self._graphs:
            return self._eager(ids, slots, positions)
        step, replay = self._graphs[rows, columns]
        step.fill(ids, slots, positions)
        return replay()[: len(ids)].clone()  # the next replay of any graph may overwrite it

    def _add(self, rows: int, columns: int, capture: Capture) -> float:
        """Capture a step; the mean difference of an example's logits, relative to their mean size."""
        example = _example(rows, columns)
        step = self._eager.decoder.cuda_graph_step(self._eager.cache, rows, columns, self._compiled)
        step.fill(*example)
        self._graphs[rows, columns] = step, capture(step.run)
        expected, found = self._eager(*example), self(*example)
        known = expected != -torch.inf  # the others are of ids that the output head does not have
        difference = float(_mean_size(found - expected, known) / _mean_size(expected, known))
        if not difference <= TOLERANCE[self._eager.decoder.dtype]:  # or NaN
            raise ValueError(f"{rows} rows, {columns} columns are {difference:.2g} off the decoder's logits")
        return difference


class CudaGraphs:
    """Captures steps as CUDA graphs, which share one memory pool: one runs at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """See ``Capture``. Work of the first runs, such as compiling, is done before the capture."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARMUP_RUNS):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = step()

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay


def capture_graphs(
    eager: Mapping[str | None, EagerStep], capture: Callable[[], Capture], ways: Mapping[str, bool]
) -> dict[str | None, DecodeStep]:
    """A step for each decoder, captured in the first way that works, else eager.

    Args:
        eager: by name, all with one cache that is not in use yet.
        capture: makes what captures the steps of one of them.
        ways: whether the layers are compiled, by the name of that way in the log.
    """
    layers = next(iter(eager.values())).cache.layers
    for layer in layers:
        layer.normal_()  # so that a step that reads the wrong columns is noticed
    try:
        return {name: _capture(own, capture, ways) for name, own in eager.items()}
    finally:
        for layer in layers:
            layer.zero_()


def _capture(eager: EagerStep, capture: Callable[[], Capture], ways: Mapping[str, bool]) -> DecodeStep:
    for way, compiled in ways.items():
        began, free = time.monotonic(), _free_memory()
        try:
            step = GraphedStep(eager, capture(), compiled)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            log.warning("graphs with %s are not used: %s: %s", way, type(error).__name__, reason)
            log.debug("the exception", exc_info=error)
        else:
            took, size = time.monotonic() - began, (free - _free_memory()) / GIB
            log.info("captured graphs with %s in %.0f s, %.2f GiB", way, took, size)
            return step
    log.warning("decoding continues without graphs, slower than possible")
    return eager


def _mean_size(values: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, values, 0.0).square().mean().sqrt()


def _free_memory() -> int:
    """Free bytes of the GPU; 0 without one."""
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0


def _example(rows: int, columns: int) -> tuple[list[int], list[int], list[int]]:
    """Rows in all slots, in reverse order, from the last column downwards."""
    places = range(rows)
    positions = [columns - 1 - row * (columns // rows) for row in places]
    return [2 + row % 64 for row in places], [*reversed(places)], positions
