"""Decode steps and a prompt with the weights of one checkpoint as stored, in int8 and in int4, on a CPU.

python -m benchmarks.quantized FOLDER [--rounds 10] [--batch 1 4 16] [--context 150] [--prompt 512]
The share of the bandwidth is that of a step's weights, compared with what a plain sum reads in a second.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from gemma_model import malloc
from gemma_model.checkpoint import read_config
from gemma_model.cpu import kernels
from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.weights import open_weights
from gemma_model.weights.quantization_recipe import BITS, Recipe
from gemma_wire.tensor_names import TOWER_PARTS

Run = Callable[[], object]


def quickest(runs: Mapping[str, Run], rounds: int) -> dict[str, float]:
    """The quickest of so many runs of each, in seconds; they take turns."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


class Loaded:
    """A checkpoint in one form.

    Args:
        folder: of the checkpoint.
        recipe: what is quantised; ``None``: nothing.
        slots: of the KV cache.
        length: of a slot, in tokens.
    """

    def __init__(self, folder: Path, recipe: Recipe | None, slots: int, length: int) -> None:
        config, began = Gemma3nDecoderConfig.read(read_config(folder)), time.perf_counter()
        weights = open_weights(folder, "cpu", torch.bfloat16, True, recipe)
        self._decoder = Gemma3nDecoder(config, weights)
        for part in TOWER_PARTS:
            weights.skip_prefix(f"{part}.", "only the decoder is measured")
        weights.check_all_used()
        self.seconds, self.bytes = time.perf_counter() - began, weights.taken_bytes
        self._cache = KVCache(config.cache_spec, slots, length, 0, "cpu", torch.bfloat16)

    def step(self, rows: int, context: int) -> object:
        """One token of each row."""
        ids = torch.randint(5, 500, (rows,)).tolist()
        return self._decoder.decode(ids, range(rows), [context] * rows, self._cache)

    def prompt(self, tokens: int) -> object:
        """A prompt in one chunk."""
        ids = torch.randint(5, 500, (tokens,)).tolist()
        return self._decoder.prefill(ids, self._decoder.embed(ids), [Batch([0], [0], tokens)], self._cache, 1)


def bandwidth() -> float:
    """Bytes per second that a sum over 1 GiB reads."""
    numbers = torch.ones(2**28)
    return numbers.nbytes / quickest({"sum": numbers.sum}, 5)["sum"]


def main() -> None:
    """Command line."""
    malloc.tune()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--context", type=int, default=150, help="tokens that each row attends to")
    parser.add_argument("--prompt", type=int, default=512, help="tokens")
    given = parser.parse_args()
    if not kernels.load():
        raise SystemExit("no kernels here; the log says why")
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} before")
    with torch.inference_mode():
        measure(given)
    print(f"\nload {os.getloadavg()[0]:.1f} after")


def measure(given: argparse.Namespace) -> None:
    """Print the tables."""
    length = max(given.context + 1, given.prompt)
    recipes: dict[str, Recipe | None] = {"as stored": None}
    recipes |= {name: Recipe(bits) for name, bits in BITS.items()}
    forms = {name: Loaded(given.folder, recipe, max(given.batch), length) for name, recipe in recipes.items()}
    for name, form in forms.items():
        print(f"{name}: loaded in {form.seconds:.1f} s, {form.bytes / 1e9:.2f} GB")
    read = bandwidth()
    print(
        f"\n| batch | form | ms a step | speed | share of {read / 1e9:.1f} GB/s |\n"
        "| --- | --- | --- | --- | --- |"
    )
    for rows in given.batch:
        best = quickest(
            {n: partial(form.step, rows, given.context) for n, form in forms.items()}, given.rounds
        )
        for name, seconds in best.items():
            share = forms[name].bytes / seconds / read
            print(
                f"| {rows} | {name} | {seconds * 1e3:.1f} | {best['as stored'] / seconds:.2f} | {share:.2f} |"
            )
    print("\n| prompt | form | tokens/s | speed |\n| --- | --- | --- | --- |")
    prompts = {name: partial(form.prompt, given.prompt) for name, form in forms.items()}
    best = quickest(prompts, 3)
    for name, seconds in best.items():
        print(
            f"| {given.prompt} | {name} | {given.prompt / seconds:.0f} | {best['as stored'] / seconds:.2f} |"
        )


if __name__ == "__main__":
    main()
