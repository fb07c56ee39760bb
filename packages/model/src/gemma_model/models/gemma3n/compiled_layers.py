"""Layers fused by ``torch.compile``, for a GPU; the only place that uses it.

PyTorch compiles ``DecoderLayer.__call__`` for each kind of layer (storing or not, sparse or not, sliding or
full), and each of these a few times at most: for one row, and for other numbers of rows and columns.
"""

import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gemma_model.layers.attention_metadata import KV, AnyMetadata, AttentionMetadata
from gemma_model.models.gemma3n.decoder_layer import DecoderLayer, RunLayer

FOLDER = Path("~/.cache/gemma-triton/inductor").expanduser()
"""Where compiled layers are kept for the next start."""
RECOMPILE_LIMIT = 256
"""How often one function may be compiled before something must be wrong."""


@cache
def compiled_layers(backend: str | Callable[..., Any] = "inductor") -> RunLayer:
    """A function that runs a layer as one compiled function. Nothing is compiled before its first call.

    Args:
        backend: of ``torch.compile``.
    """
    from torch._dynamo import maybe_mark_dynamic  # noqa: PLC0415 - takes seconds to import
    from torch._inductor import config  # noqa: PLC0415

    if not os.access(sys.executable or "", os.X_OK):  # as in Triton's process for Python models
        config.compile_threads = 1  # there is no Python executable to start more processes with
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(FOLDER))  # read only by PyTorch, when it compiles
    run = torch.compile(  # type: ignore[call-overload]
        DecoderLayer.__call__, fullgraph=True, backend=backend, recompile_limit=RECOMPILE_LIMIT
    )

    def run_layer(
        layer: DecoderLayer,
        streams: Tensor,
        per_layer_input: Tensor,
        metadata: AnyMetadata,
        kv_cache: Tensor | None,
        shared_kv: KV | None,
        keep: int,
    ) -> tuple[Tensor, KV]:
        assert isinstance(metadata, AttentionMetadata), "prompts are not compiled"
        places = (metadata.bias, metadata.cos, metadata.sin, metadata.slots, metadata.write_columns)
        for tensor in (streams, per_layer_input, *places, *(shared_kv or ())):
            maybe_mark_dynamic(tensor, 0)  # rows
        result: tuple[Tensor, KV] = run(layer, streams, per_layer_input, metadata, kv_cache, shared_kv, keep)
        return result

    return run_layer
