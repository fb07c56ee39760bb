"""A long prompt: with shared layers skipped and not, at the next turn, and for who is answered meanwhile.

python -m benchmarks.long_prompt FOLDER [--prompt 2000] [--rounds 3]
"""

import argparse
import asyncio
import json
import random
import statistics
import threading
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from benchmarks.rounds import Ratio, Rounds, alternate
from torch import Tensor

from gemma_model import malloc
from gemma_model.cpu import kernels
from gemma_model.device import pick_device
from gemma_model.engine.engine import NativeEngine
from gemma_model.engine.model_loader import start_engine
from gemma_model.engine_types import EngineOutput, EngineRequest, EngineSamplingParams, TokenizedPrompt
from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.settings import Settings
from gemma_model.weights import open_weights

GREEDY = EngineSamplingParams(temperature=0)
SAID = 32  # tokens of an answer
NEW = 20  # tokens of the next question
LEAST_ID, MOST_ID = 100, 400  # plain text in every checkpoint


class Whole(Gemma3nDecoder):
    """Runs every layer for every token, as a server that knows nothing of shared layers would."""

    def _logits(self, streams: Tensor) -> Tensor:
        return super()._logits(streams[-1:])  # the head is not what is compared


def prefill(decoder: Gemma3nDecoder, cache: KVCache, ids: Sequence[int], chunk: int) -> float:
    """Seconds until the logits of the last token are there."""
    began = time.perf_counter()
    for start in range(0, len(ids), chunk):
        piece = ids[start : start + chunk]
        keep = len(piece) if isinstance(decoder, Whole) else int(start + chunk >= len(ids))
        decoder.prefill(piece, decoder.embed(piece), [Batch([0], [start], len(piece))], cache, keep)
    return time.perf_counter() - began


def skipping(folder: Path, length: int, chunk: int, rounds: int, most_busy: float) -> Rounds[float]:
    """The same prompts with the shared layers for the last token alone, and for all of them."""
    config = Gemma3nDecoderConfig.read(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    device, dtype = pick_device("auto"), torch.bfloat16
    compiled = device.type == "cpu" and kernels.load()
    kinds = {"skipping": Gemma3nDecoder, "all layers": Whole}
    decoders = {
        name: kind(config, open_weights(folder, device, dtype, compiled)) for name, kind in kinds.items()
    }
    cache = KVCache(config.cache_spec, 1, length, 0, device, dtype)

    async def once(decoder: Gemma3nDecoder, number: int) -> float:
        with torch.inference_mode():
            return prefill(decoder, cache, text(length, number), chunk)

    sides = {name: partial(once, decoder) for name, decoder in decoders.items()}
    return asyncio.run(alternate(sides, rounds, most_busy))


class Client:
    """One request, and when its tokens came."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.times: list[float] = []
        self.ended = threading.Event()

    def __call__(self, step: EngineOutput) -> None:
        """Listen."""
        assert step.error is None, step.error
        self.tokens += step.token_ids
        self.times += [time.perf_counter()] * len(step.token_ids)
        if step.last:
            self.ended.set()


def text(length: int, seed: int) -> tuple[int, ...]:
    """Token ids; no two seeds begin alike."""
    rng = random.Random(seed)
    return tuple(rng.randrange(LEAST_ID, MOST_ID) for _ in range(length))


def ask(engine: NativeEngine, ids: Sequence[int], tokens: int) -> tuple[Client, float]:
    """A request, and the seconds to its first token."""
    client, began = Client(), time.perf_counter()
    engine.submit(EngineRequest(TokenizedPrompt(tuple(ids)), GREEDY, tokens), client)
    client.ended.wait()
    return client, client.times[0] - began


def turns(engine: NativeEngine, length: int, seed: int) -> tuple[float, float]:
    """Seconds to the first token of a conversation's first turn and of its second."""
    ids = text(length, seed)
    first, before = ask(engine, ids, SAID)
    _, after = ask(engine, (*ids, *first.tokens, *text(NEW, seed + 1)), SAID)
    return before, after


def gap(engine: NativeEngine, length: int, chunk: int, seed: int) -> tuple[float, float]:
    """The longest gap of a running stream during a long prompt, and the time of a chunk of that prompt."""
    running, long = Client(), Client()
    number = engine.submit(EngineRequest(TokenizedPrompt(text(NEW, seed)), GREEDY, 3000), running)
    while len(running.tokens) < SAID:
        time.sleep(0.01)
    began = time.perf_counter()
    engine.submit(EngineRequest(TokenizedPrompt(text(length, seed + 1)), GREEDY, 1), long)
    long.ended.wait()
    engine.cancel(number)
    running.ended.wait()
    during = [at for at in running.times if at >= began - 0.5 and at <= long.times[0] + 0.5]
    worst = max(b - a for a, b in pairwise(during))
    return worst, (long.times[0] - began) / -(-length // chunk)


def main() -> None:
    """Command line."""
    malloc.tune()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompt", type=int, default=2000, help="tokens")
    parser.add_argument("--chunk", type=int, default=512, help="tokens in one step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most-busy", type=float, default=0.1, help="cores in use by others")
    given = parser.parse_args()
    settings = Settings(
        max_num_seqs=4,
        max_model_len=max(4096, 2 * given.prompt),
        prefill_chunk=given.chunk,
        variants="none",
    )
    of = skipping(given.folder, given.prompt, given.chunk, given.rounds, given.most_busy).kept
    print(f"| {given.prompt:,} tokens | seconds | beside it | ratio |\n| --- | --- | --- | --- |")
    row("prefill, shared layers skipped; all layers", of["skipping"], of["all layers"])
    engine = start_engine(given.folder, settings)
    turns(engine, given.prompt, -2)  # to warm up
    told = [turns(engine, given.prompt, 10 * number) for number in range(given.rounds)]
    row("TTFT of the second turn; of the first", [b for _, b in told], [a for a, _ in told])
    gaps = [gap(engine, given.prompt, given.chunk, 10 * number + 5) for number in range(given.rounds)]
    row("a chunk; the worst gap of a running answer", [b for _, b in gaps], [a for a, _ in gaps])
    engine.close()


def row(what: str, ours: Sequence[float], theirs: Sequence[float]) -> None:
    """A line of the table: medians, and the second over the first."""
    middle = f"{statistics.median(ours):.3f} | {statistics.median(theirs):.3f}"
    print(f"| {what} | {middle} | {Ratio.of(theirs, ours)} |", flush=True)


if __name__ == "__main__":
    main()
