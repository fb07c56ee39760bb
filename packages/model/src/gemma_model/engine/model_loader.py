"""Loads a checkpoint and starts the native engine."""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import torch

from gemma_model.device import describe_device, pick_device
from gemma_model.engine.cuda_graphs import CudaGraphs
from gemma_model.engine.drafts.speculation import Speculation
from gemma_model.engine.engine import Closeable, NativeEngine
from gemma_model.engine.host_memory import free_host_memory
from gemma_model.engine.kv_cache_memory import GIB, check_fits, prefix_cache_size
from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.media_encoder import MediaEncoder, refuse, run_encoder
from gemma_model.engine.model_runner import ModelRunner
from gemma_model.engine.per_layer_preload import PerLayerPreloader
from gemma_model.engine.prefix_cache import BLOCK_TOKENS, PrefixCache
from gemma_model.engine.scheduler import Scheduler
from gemma_model.engine_types import EngineInfo
from gemma_model.layers.kv_block_pool import KVBlockPool, block_bytes
from gemma_model.layers.kv_cache import KVCache, bytes_per_slot
from gemma_model.layers.specs import LayerKVSpec
from gemma_model.models.loader import load_model
from gemma_model.settings import Settings

log = logging.getLogger(__name__)
MAX_ROWS = 64
"""Rows of a decode step with drafts: with a vocabulary of 262,400, the logits of each take 1 MB."""


class LoadedRunner:
    """A model in memory, with its KV cache and its runner.

    Args:
        checkpoint: its folder.
        settings: of the engine.

    Raises:
        InvalidRequest: the checkpoint or a setting is not supported, or the KV cache does not fit.
    """

    def __init__(self, checkpoint: Path, settings: Settings) -> None:
        self.device = pick_device(settings.device)
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # of this thread, for graphs and streams
        loaded = load_model(checkpoint, settings, self.device)
        self.model, self.host_table, self.memory_bytes = loaded.model, loaded.host_table, loaded.weight_bytes
        self.dtype, self.length = self.model.dtype, settings.max_model_len or loaded.max_length
        self.dtype_name = str(self.dtype).removeprefix("torch.")
        if loaded.quantization:
            self.dtype_name += f", quantised to {loaded.quantization}"
        cache, pool = self._make_caches(settings)
        encode = refuse if loaded.encoders is None else partial(run_encoder, loaded.encoders)
        media_encoder = MediaEncoder(encode, settings.media_cache_bytes)
        chunk = settings.prefill_chunk
        self.max_rows = max(MAX_ROWS, settings.max_num_seqs)
        """Of a decode step with drafts."""
        self.runner = ModelRunner(self.model, cache, pool, media_encoder, loaded.nested, chunk)
        if self.device.type == "cuda" and settings.compile == "auto":
            ways = {"compiled layers": True, "PyTorch's own operations": False}
            self.runner.capture_graphs(CudaGraphs, ways)
            self.max_rows = settings.max_num_seqs  # the largest graph

    def _make_caches(self, settings: Settings) -> tuple[KVCache, KVBlockPool]:
        """The KV cache, and the pool of the prefix cache in a part of the memory that is left."""
        cuda = self.device.type == "cuda"
        free = torch.cuda.mem_get_info(self.device)[0] if cuda else free_host_memory()
        spec, slots, dtype = self.model.cache_spec, settings.max_num_seqs, self.dtype
        # After its step, a chunk of a prompt is still in the rings, so that the prefix cache can save it.
        chunk = 0 if settings.prefix_cache_bytes == 0 else settings.prefill_chunk
        extra_columns = ring_slack(spec, chunk, settings.speculative_tokens)
        per_slot = partial(bytes_per_slot, spec, extra_columns=extra_columns, itemsize=dtype.itemsize)
        log.info("KV cache: %s", check_fits(per_slot, slots, self.length, free))
        cache = KVCache(spec, slots, self.length, extra_columns, self.device, dtype)
        left = None if free is None else free - slots * per_slot(self.length)
        size, block = prefix_cache_size(settings.prefix_cache_bytes, left), block_bytes(cache, BLOCK_TOKENS)
        wraps = cache.ring < self.length
        self.kept, self.blocks = cache.ring - wraps * settings.speculative_tokens, size // block
        tokens, gib = self.blocks * BLOCK_TOKENS, self.blocks * block / GIB
        log.info("prefix cache: up to %s tokens, %.2f GiB", f"{tokens:,}", gib)
        return cache, KVBlockPool(cache, self.blocks, BLOCK_TOKENS)


def ring_slack(spec: Sequence[LayerKVSpec], chunk: int, draft: int) -> int:
    """Columns of a ring beyond the window.

    Args:
        spec: of each layer.
        chunk: tokens of a prompt that are kept until the next step; 0: none.
        draft: tokens of a draft at most, which are written after the last token of the output, and must
            overwrite nothing in its window and in such a chunk.
    """
    window = min((layer.window for layer in spec if layer.window is not None), default=draft)
    return max(draft, chunk + max(0, draft - window)) if chunk else draft


def start_engine(folder: Path, settings: Settings | None = None) -> NativeEngine:
    """Load a checkpoint, and start the thread of its engine.

    The checkpoint is loaded in the thread that runs it: OpenMP gives each thread that it serves a pool of its
    own, and the workers of two pools on the same cores sleep between loops instead of waiting actively.

    Raises:
        InvalidRequest: the checkpoint is not supported, or the KV cache does not fit.
    """
    loaded: Future[NativeEngine] = Future()
    thread = threading.Thread(
        target=_load_and_run, args=(folder, settings or Settings(), loaded), name="engine", daemon=True
    )
    thread.start()
    engine = loaded.result()
    engine.thread = thread
    return engine


def _load_and_run(folder: Path, settings: Settings, loaded: "Future[NativeEngine]") -> None:
    try:
        engine = _load(folder, settings)
    except Exception as error:
        loaded.set_exception(error)
    else:
        loaded.set_result(engine)
        engine.run_forever()


def _load(folder: Path, settings: Settings) -> NativeEngine:
    loaded = LoadedRunner(folder, settings)
    slots, prefix_cache = KVSlots(settings.max_num_seqs), PrefixCache(loaded.blocks, loaded.kept)
    scheduler = Scheduler(slots, prefix_cache, settings.max_queue, settings.prefill_chunk)
    table = loaded.host_table if settings.ple == "auto" else None
    preloaders = [] if table is None else [PerLayerPreloader(table, free_host_memory())]
    info = EngineInfo(
        name="native",
        device=describe_device(loaded.device),
        dtype=loaded.dtype_name,
        memory_bytes=loaded.memory_bytes,
        max_num_seqs=settings.max_num_seqs,
        running=0,
        waiting=0,
        cache_tokens=settings.max_num_seqs * loaded.length,
        prefix_cache_tokens=loaded.blocks * BLOCK_TOKENS,
    )
    speculation = Speculation(settings.speculative_tokens, loaded.max_rows)
    resources: list[Closeable] = [loaded.runner, *preloaders]
    return NativeEngine(loaded.runner, scheduler, info, loaded.length, speculation, resources)
