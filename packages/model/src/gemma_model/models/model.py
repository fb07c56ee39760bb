"""What the engine uses of a model; a model family implements it."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.layers.specs import LayerKVSpec


class Encoders(Protocol):
    """The encoders of media. A run yields between its blocks, so that decode steps can run meanwhile."""

    def encode_image(self, pixels: Tensor) -> Generator[None, None, Tensor]:
        """Images of one size, ``[n, 3, height, width]`` → soft tokens, ``[n, soft tokens, hidden]``."""

    def encode_audio(self, log_mel: Tensor) -> Generator[None, None, Tensor]:
        """Audio of one length, ``[n, frames, bins]`` → soft tokens, ``[n, soft tokens, hidden]``."""


class HostTable(Protocol):
    """A table of a model that stays in the memory-mapped file."""

    @property
    def nbytes(self) -> int:
        """The size of the table."""

    def read_into_page_cache(self, stopped: Callable[[], bool]) -> bool:
        """Read the complete table, while it is used, until ``stopped`` returns true.

        Returns:
            Whether all was read.
        """


class FixedShapeStep(Protocol):
    """A decode step with shapes and buffers that never change, so that a CUDA graph can replay it."""

    def fill(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> None:
        """Set the inputs of ``run``: new tokens, at most as many as the step has rows."""

    def run(self) -> Tensor:
        """Logits, ``[rows, vocab]`` fp32. Keys and values go into the cache."""


class Model(Protocol):
    """A decoder with its weights. Its methods are called in inference mode, by one thread."""

    @property
    def vocab_size(self) -> int:
        """The number of logits."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the computation."""

    @property
    def cache_spec(self) -> Sequence[LayerKVSpec]:
        """What each layer keeps in the KV cache."""

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Token ids → embeddings, ``[tokens, hidden]``. Soft tokens of media may replace some of them."""

    def prefill(
        self, ids: Sequence[int], x: Tensor, batches: Sequence[Batch], cache: KVCache, keep: int
    ) -> Tensor | None:
        """Run chunks of prompts in different slots, and write their keys and values into the cache.

        Args:
            ids: of all tokens; the tokens of all batches are concatenated.
            x: their embeddings, ``[tokens, hidden]``.
            batches: slots and positions.
            cache: all slots.
            keep: tokens at the end of each row whose logits are wanted.

        Returns:
            Logits, ``[rows x keep, vocab]`` fp32; ``None`` if none are wanted.
        """

    def decode(
        self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int], cache: KVCache
    ) -> Tensor:
        """Run one new token of each row. Returns logits, ``[rows, vocab]`` fp32."""

    def cuda_graph_step(self, cache: KVCache, rows: int, columns: int, compiled: bool) -> FixedShapeStep:
        """A decode step for CUDA graphs.

        Args:
            cache: all slots.
            rows: the number of rows in each step.
            columns: of the cache that full layers read; every position must be below.
            compiled: run the layers compiled by ``torch.compile``.
        """


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights.

    Args:
        model: the decoder.
        nested: models nested in it, by the names under which they are served.
        encoders: of media; ``None`` if the model takes text alone.
        host_table: a table that stays in the memory-mapped file; ``None`` if there is none.
        max_length: the longest context in tokens.
        weight_bytes: bytes of the weights on the device.
        quantization: what matrices are quantised to, such as ``int4 and int8``; empty if none is.
    """

    model: Model
    nested: Mapping[str, Model]
    encoders: Encoders | None
    host_table: HostTable | None
    max_length: int
    weight_bytes: int
    quantization: str = ""
