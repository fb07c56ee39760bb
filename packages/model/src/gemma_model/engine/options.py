"""What can be set about the native engine."""

from dataclasses import dataclass
from typing import Literal

MIB = 2**20


@dataclass(frozen=True)
class Options:
    """The engine's settings.

    Args:
        device: auto, cpu, cuda, or cuda:N.
        dtype: auto (as stored), bfloat16 or float32; in fp16 Gemma 3n's activations overflow.
        max_num_seqs: requests that run at once; each has a cache slot.
        max_queue: requests that wait when all slots are taken.
        max_model_len: tokens of prompt and answer together; ``None``: the checkpoint's own.
        prefill_chunk: prompt tokens in one step; while they run, nothing else does.
        rewind: tokens that a conversation can be taken back by once it is longer than the sliding window
            and still be continued from the cache; each costs a column in every ring.
        per_layer_embeddings: where the table of per-layer embeddings lives; auto: in host memory.
        media_cache_bytes: soft tokens of pictures and sounds that are kept.
    """

    device: str = "auto"
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    max_num_seqs: int = 16
    max_queue: int = 256
    max_model_len: int | None = None
    prefill_chunk: int = 512
    rewind: int = 0
    per_layer_embeddings: Literal["auto", "host", "device"] = "auto"
    media_cache_bytes: int = 256 * MIB
