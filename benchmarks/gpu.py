"""A GPU's share of what its memory allows: full-size Gemma 3n E4B with random weights, without a checkpoint.

First single products, then the complete decoder in bf16 and with the matrices that GEMMA_QUANTIZE=int8 and
int4 quantise.

python -m benchmarks.gpu [--quantize none int8 int4] [--batch 1 8 32 64] [--prompt 512 8192] [--context 1024]

Has not been run on a GPU yet. ``--device cpu --config tiny`` shows that the script itself runs.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import torch
from benchmarks.gpu_products import GROUP_SIZE, SHAPES, measure_products, random_quantized
from benchmarks.long_prompt import prefill
from torch import Tensor
from transformers import Gemma3nTextConfig, Gemma3nTextModel

from gemma_model.device import describe_device
from gemma_model.engine.cuda_graphs import CudaGraphs, DecodeStep, EagerStep, capture_graphs
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.sampling.sampler import SamplingRow, sample_rows
from gemma_model.testing.tiny_checkpoint import Shape
from gemma_model.weights import Weights
from gemma_model.weights.gpu_products import GpuProducts
from gemma_model.weights.quantization_recipe import BITS, Recipe
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.stored_tensor import StoredTensor

CHUNK, GIB = 512, 2**30  # tokens of a prompt at once; bytes
TABLE = "embed_tokens_per_layer.weight"


def random_weights(config: Gemma3nTextConfig, device: torch.device, quantize: str) -> Weights:
    """Weights as large as a checkpoint's, made on the device; the per-layer table is zeros on the host."""
    recipe = Recipe(BITS[quantize], per_layer_table=None) if quantize in BITS else None
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Gemma3nTextModel(config).state_dict().items()}
    stored = {
        name: StoredTensor(tuple, partial(_random, name, shape, device, recipe))
        for name, shape in shapes.items()
    }
    stored[TABLE] = StoredTensor.dense(partial(torch.zeros, shapes[TABLE], dtype=torch.bfloat16))
    products = GpuProducts() if device.type == "cuda" else None
    return Weights(stored, device, torch.bfloat16, gpu_products=products)


def _random(
    name: str, shape: torch.Size, device: torch.device, recipe: Recipe | None
) -> Tensor | QuantizedTensor:
    """So that no layer overwhelms the others, for then every rounding would grow from layer to layer."""
    if len(shape) == 1:
        size = shape[0] ** -0.5 if "q_norm" in name else 0.2 if ".post_" in name else 1.0
        return torch.full(shape, size, device=device)
    bits = None if recipe is None or shape[-1] % GROUP_SIZE else recipe.bits_of(name)
    if bits is not None:
        return random_quantized((shape[0], shape[1]), bits, device, shape[1] ** -0.5)
    return torch.randn(shape, dtype=torch.bfloat16, device=device).mul_(shape[-1] ** -0.5)


def seconds(work: Callable[[], object], rounds: int, device: torch.device) -> float:
    """The median of so many times, of which none ends before the device has ended."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    times = []
    for _ in range(rounds + 2):  # the first to warm up
        began = now()
        work()
        times.append(now() - began)
    return statistics.median(times[2:])


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second that are read and written when so many are copied."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(partial(target.copy_, source), 10, device)


def bytes_read(config: Gemma3nDecoderConfig, weights: Weights, rows: int, context: int) -> int:
    """What a step cannot do without: each weight once, and each layer's keys and values in reach."""
    near = min(config.sliding_window, context)
    columns = sum(near if kind == "sliding_attention" else context for kind in config.layer_types)
    return weights.taken_bytes + rows * columns * 2 * config.num_key_value_heads * config.head_dim * 2


def decode(step: DecodeStep, rows: int, context: int) -> None:
    """One token for each of so many sequences, from ids to ids."""
    places = range(rows)
    sample_rows(step([2] * rows, list(places), [context - 1] * rows), [SamplingRow()] * rows)


def line(steps: dict[str, DecodeStep], rows: int, given: argparse.Namespace, bound: float) -> str:
    """Tokens a second, eagerly and with graphs, and what of the bound (seconds a step) that is."""
    eager, graphed = (
        rows / seconds(partial(decode, step, rows, given.context), given.rounds, given.device)
        for step in steps.values()
    )
    most = rows / bound
    cells = f"{eager:.1f} | {graphed:.1f} | {graphed / eager:.2f} | {most:.1f} | {graphed / most:.0%}"
    return f"| {rows} | {cells} |"


def run(given: argparse.Namespace) -> None:
    """All of it."""
    time_of = partial(seconds, rounds=given.rounds, device=given.device)
    measure_products(given.device, time_of, SHAPES if given.config == "E4B" else {"tiny": (64, 128)})
    for quantize in given.quantize:
        print(f"\n## {'bf16' if quantize == 'none' else quantize}\n")
        run_decoder(given, quantize)


def run_decoder(given: argparse.Namespace, quantize: str) -> None:
    """Steps and prompts of the complete decoder."""
    device, slots, cuda = given.device, max(given.batch), given.device.type == "cuda"
    tiny = {key: list(x) if isinstance(x, tuple) else x for key, x in asdict(Shape()).items()}
    shape = Gemma3nTextConfig(**tiny, vocab_size=512) if given.config == "tiny" else Gemma3nTextConfig()
    config, weights = Gemma3nDecoderConfig.read(shape.to_dict()), random_weights(shape, device, quantize)
    decoder = Gemma3nDecoder(config, weights)
    cache = KVCache(
        config.cache_spec, slots, max(given.context, *given.prompt) + 1, 0, device, torch.bfloat16
    )
    held = sum(layer.nbytes for layer in cache.layers)
    print(f"weights {weights.taken_bytes / GIB:.2f} GiB, cache {held / GIB:.2f} GiB of {slots} slots")
    eager = EagerStep(decoder, cache)
    ways = {"compiled layers": True} if cuda else {}
    ways["PyTorch's own operations"] = False
    graphed = capture_graphs({None: eager}, CudaGraphs if cuda else lambda: lambda step: step, ways)
    speed = copy_bandwidth(device, GIB if cuda else 2**24)
    print(f"copying: {speed / 1e9:,.0f} GB/s; each row attends to {given.context} tokens\n")
    print("| batch | eager tok/s | graphs tok/s | ratio | bound tok/s | share |\n" + "| --- " * 6 + "|")
    for rows in given.batch:
        bound = bytes_read(config, weights, rows, given.context) / speed
        print(line({"eager": eager, "graphs": graphed[None]}, rows, given, bound), flush=True)
    print("\n| prompt | until its first token ms |\n| --- | --- |")
    for tokens in given.prompt:
        took = seconds(partial(prefill, decoder, cache, [2] * tokens, CHUNK), 3, device)
        print(f"| {tokens} | {took * 1e3:.1f} |")
    if cuda:
        free, total = torch.cuda.mem_get_info()
        print(f"\n{(total - free) / GIB:.2f} GiB taken in all, CUDA and what others use included")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--config", choices=["E4B", "tiny"], default="E4B")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--prompt", type=int, nargs="+", default=[512, 8192])
    parser.add_argument("--quantize", choices=["none", *BITS], nargs="+", default=["none", *BITS])
    parser.add_argument("--context", type=int, default=1024, help="tokens that each row attends to")
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    if given.device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("This needs a GPU, and PyTorch finds none here.")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(describe_device(given.device))
    with torch.inference_mode():
        run(given)


if __name__ == "__main__":
    main()
