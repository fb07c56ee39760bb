"""The size of the KV cache, computed from a model's shape."""

from typing import Final

from gemma_launcher.tools.memory_planner.model_shape import SLIDING, TextShape

PREFILL_CHUNK: Final = 512
"""Prompt tokens in one step, as ``GEMMA_PREFILL_CHUNK``."""


def kv_slot_bytes(text: TextShape, length: int, item_bytes: int, chunk: int = PREFILL_CHUNK) -> int:
    """KV cache bytes of a sequence of ``length`` tokens.

    A sliding layer keeps at most its window, and a chunk before it, which the prefix cache then saves.
    """
    window = min(text.sliding_window + chunk, length)
    columns = sum(window if kind == SLIDING else length for kind in text.kv_layer_types)
    return columns * kv_token_bytes(text, item_bytes)


def kv_token_bytes(text: TextShape, item_bytes: int) -> int:
    """Bytes of the key and the value of one token in one layer."""
    return 2 * text.num_key_value_heads * text.head_dim * item_bytes
