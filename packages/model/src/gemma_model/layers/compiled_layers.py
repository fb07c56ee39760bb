"""Layers fused by ``torch.compile``, for a GPU; the only place that uses it.

PyTorch compiles the ``__call__`` of a family's decoder layer for each kind of layer, such as sliding or
full, and each of these a few times at most: for one row, and for other numbers of rows and columns.
"""

import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from gemma_model.layers.attention_metadata import AttentionMetadata

RunLayer = TypeVar("RunLayer", bound=Callable[..., Any])
FOLDER = Path("~/.cache/gemma-triton/inductor").expanduser()
"""Where compiled layers are kept for the next start."""
RECOMPILE_LIMIT = 256
"""How often one function may be compiled before something must be wrong."""


@cache
def compiled_layers(run_layer: RunLayer, backend: str | Callable[..., Any] = "inductor") -> RunLayer:
    """A function that runs a layer as one compiled function. Nothing is compiled before its first call.

    Args:
        run_layer: ``__call__`` of a decoder layer. Its arguments are tensors with a row for each token, the
            attention metadata, the layer's part of the cache, and others.
        backend: of ``torch.compile``.
    """
    from torch._inductor import config  # noqa: PLC0415 - takes seconds to import

    if not os.access(sys.executable or "", os.X_OK):  # as in Triton's process for Python models
        config.compile_threads = 1  # there is no Python executable to start more processes with
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(FOLDER))  # read only by PyTorch, when it compiles
    run: RunLayer = torch.compile(  # type: ignore[call-overload]
        run_layer, fullgraph=True, backend=backend, recompile_limit=RECOMPILE_LIMIT
    )

    def run_compiled(layer: object, *arguments: Any) -> Any:
        _mark_rows_dynamic(arguments)
        return run(layer, *arguments)

    return run_compiled  # type: ignore[return-value]


def _mark_rows_dynamic(arguments: tuple[Any, ...]) -> None:
    """Tell PyTorch that the first dimension of all tensors but the cache is the number of rows."""
    from torch._dynamo import maybe_mark_dynamic  # noqa: PLC0415 - takes seconds to import

    (at,) = (i for i, argument in enumerate(arguments) if isinstance(argument, AttentionMetadata))
    metadata: AttentionMetadata = arguments[at]
    places = (metadata.bias, metadata.cos, metadata.sin, metadata.slots, metadata.write_columns)
    shared_kv: list[Tensor] = [
        t for argument in arguments[at + 2 :] if isinstance(argument, tuple) for t in argument
    ]
    for tensor in (*arguments[:at], *places, *shared_kv):
        maybe_mark_dynamic(tensor, 0)
