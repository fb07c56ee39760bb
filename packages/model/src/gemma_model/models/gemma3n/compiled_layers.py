"""Layers fused by ``torch.compile``, for a GPU; the one place where that is done.

PyTorch compiles ``Layer.__call__`` for each kind of layer that it meets (storing or not, sparse or not,
sliding or full), and for each a few times at most: for one row, for other numbers of them and of columns.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gemma_model.layers.attention import KV, AnyReach, Reach
from gemma_model.models.gemma3n.decoder_layer import Layer, Through

FOLDER = Path("~/.cache/gemma-triton/inductor").expanduser()
"""Where compiled layers are kept for the next start."""
KINDS = 256
"""Times that one function may be compiled, before something must be wrong."""


def compiled_layers(backend: str | Callable[..., Any] = "inductor") -> Through:
    """What runs a layer as one compiled function; nothing is compiled before its first call.

    Args:
        backend: of ``torch.compile``.
    """
    from torch._dynamo import maybe_mark_dynamic  # noqa: PLC0415 - takes seconds to import
    from torch._inductor import config  # noqa: PLC0415

    if not os.access(sys.executable or "", os.X_OK):  # as in Triton's process for Python models
        config.compile_threads = 1  # no Python is known to start others with
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(FOLDER))  # read by PyTorch alone, when it compiles
    run = torch.compile(Layer.__call__, fullgraph=True, backend=backend, recompile_limit=KINDS)  # type: ignore[call-overload]

    def through(
        layer: Layer,
        streams: Tensor,
        per_layer_input: Tensor,
        reach: AnyReach,
        cached: Tensor | None,
        lent: KV | None,
        keep: int,
    ) -> tuple[Tensor, KV]:
        assert isinstance(reach, Reach), "prompts are not compiled"
        places = (reach.visible, reach.cos, reach.sin, reach.slots, reach.kept)
        for tensor in (streams, per_layer_input, *places, *(lent or ())):
            maybe_mark_dynamic(tensor, 0)  # rows
        result: tuple[Tensor, KV] = run(layer, streams, per_layer_input, reach, cached, lent, keep)
        return result

    return through
