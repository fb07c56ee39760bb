"""The CPU kernels compared with PyTorch's operations: single products, and complete decode steps.

python benchmarks/kernels.py [FOLDER] [--rounds 30] [--batch 1 4 16] [--context 150]
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import NormalDist

import torch
import torch.nn.functional as F  # noqa: N812

from gemma_model import malloc
from gemma_model.cpu import kernels
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.weights import open_weights

PRODUCTS = ((262_400, 512), (4096, 512), (512, 2048), (768, 512), (256, 512))  # [out, in]
ROWS = (1, 4, 16, 64, 512)
Way = Callable[[], object]


def pair(ours: Way, theirs: Way, rounds: int) -> tuple[float, float]:
    """The quickest of so many calls of each, in milliseconds; they take turns."""
    best = [float("inf"), float("inf")]
    for _ in range(rounds + 2):
        for place, way in enumerate((ours, theirs)):
            began = time.perf_counter()
            way()
            best[place] = min(best[place], (time.perf_counter() - began) * 1e3)
    return best[0], best[1]


def products(rounds: int) -> None:
    """bf16 products of a few rows."""
    print("| product | rows | kernels ms | PyTorch ms | ratio |\n| --- | --- | --- | --- | --- |")
    for out, depth in PRODUCTS:
        weight = (torch.randn(out, depth) * 0.02).bfloat16()
        for rows in ROWS[: 3 if out > 100_000 else None]:
            x = torch.randn(rows, depth).bfloat16()
            ways = (partial(kernels.ops.linear, x, weight), partial(F.linear, x, weight))
            ours, theirs = pair(*ways, rounds)
            print(f"| {out} x {depth} | {rows} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.2f} |")


def sparse_layers(rounds: int) -> None:
    """The feed-forward part of a layer with 95 % of its gates shut: the open neurons alone, and all."""
    print("\n| sparse layer | rows | open ms | all ms | ratio |\n| --- | --- | --- | --- | --- |")
    deviations = NormalDist().inv_cdf(0.95)
    for neurons, width in ((2048, 512), (16_384, 2048)):
        gate, up, down = ((torch.randn(neurons, width) * 0.02).bfloat16() for _ in range(3))
        both, transposed = torch.cat((gate, up)), down.t().contiguous()
        for rows in (1, 4, 16, 64):
            x = torch.randn(rows, width).bfloat16()
            few = partial(kernels.ops.sparse_mlp, x, gate, up, down, deviations)
            ours, theirs = pair(few, partial(_dense, x, both, transposed, deviations), rounds)
            print(f"| {neurons} x {width} | {rows} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.2f} |")


def _dense(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, deviations: float) -> object:
    ops = kernels.ops
    return ops.linear(ops.gated_gelu(ops.linear(x, gate_up), deviations), down)


def steps(folder: Path, rounds: int, batches: list[int], context: int) -> None:
    """Whole decode steps of a checkpoint, from token ids to logits."""
    config = Gemma3nDecoderConfig.read(json.loads((folder / "config.json").read_text()))
    ways = [_stepper(folder, config, compiled, max(batches), context) for compiled in (True, False)]
    print("\n| batch | kernels ms | PyTorch ms | ratio |\n| --- | --- | --- | --- |")
    for batch in batches:
        ours, theirs = pair(partial(ways[0], batch), partial(ways[1], batch), rounds)
        print(f"| {batch} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.2f} |")


def _stepper(
    folder: Path, config: Gemma3nDecoderConfig, compiled: bool, slots: int, context: int
) -> Callable[[int], object]:
    decoder = Gemma3nDecoder(config, open_weights(folder, "cpu", torch.bfloat16, compiled))
    cache = KVCache(config.cache_spec, slots, context + 1, 0, "cpu", torch.bfloat16)

    def step(batch: int) -> object:
        ids = torch.randint(5, 500, (batch,)).tolist()
        return decoder.decode(ids, range(batch), [context] * batch, cache)

    return step


def main() -> None:
    """Command line."""
    malloc.tune()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="a checkpoint, for whole steps")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--context", type=int, default=150, help="tokens that each row attends to")
    given = parser.parse_args()
    if not kernels.load():
        raise SystemExit("no kernels here; the log says why")
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} before")
    with torch.inference_mode():
        products(given.rounds)
        sparse_layers(given.rounds)
        if given.folder:
            steps(given.folder, given.rounds, given.batch, given.context)
    print(f"\nload {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
