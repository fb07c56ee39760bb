"""The tensors of the prefix cache: blocks of tokens with their keys and values of all layers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gemma_model.layers.kv_cache import KVCache


class KVBlockPool:
    """One tensor per storing layer, ``[blocks, 2 x kv_heads, block_tokens, head_dim]``, keys before values.

    Host memory is taken only when a block is first written.

    Args:
        cache: of all slots; the pool is on its device and has its dtype.
        blocks: number of blocks.
        block_tokens: tokens of a block.
    """

    def __init__(self, cache: KVCache, blocks: int, block_tokens: int) -> None:
        self._cache, self._tokens = cache, block_tokens
        self._layers = [
            layer.new_empty(blocks, layer.shape[1], block_tokens, layer.shape[3]) for layer in cache.layers
        ]

    def save(self, slot: int, start: int, blocks: Sequence[int]) -> None:
        """Copy the tokens of a slot from the position ``start`` on, which all its rings still hold."""
        for own, pool in zip(self._cache.layers, self._layers, strict=True):
            columns = self._columns(start, start + len(blocks) * self._tokens, own)
            stored = own[slot].index_select(1, columns)  # [2 x kv_heads, tokens, head_dim]
            split = stored.view(len(own[slot]), len(blocks), self._tokens, -1).transpose(0, 1)
            pool.index_copy_(0, torch.tensor(blocks, device=pool.device), split)

    def load(self, slot: int, start: int, blocks: Sequence[int]) -> None:
        """Copy blocks to a slot, from the position ``start`` on; to a ring only what a later token sees."""
        stop = start + len(blocks) * self._tokens
        for own, pool, window in zip(self._cache.layers, self._layers, self._cache.windows, strict=True):
            first = start if window is None else max(start, stop - window + 1)
            if first < stop:
                last = blocks[(first - start) // self._tokens :]
                stored = pool.index_select(0, torch.tensor(last, device=pool.device))
                tokens = stored.transpose(0, 1).flatten(1, 2)[:, first - stop :]
                own[slot].index_copy_(1, self._columns(first, stop, own), tokens)

    @staticmethod
    def _columns(start: int, stop: int, layer: Tensor) -> Tensor:
        return torch.arange(start, stop, device=layer.device) % layer.shape[2]


def block_bytes(cache: KVCache, block_tokens: int) -> int:
    """Bytes of one block in all layers."""
    per_token = sum(layer.shape[1] * layer.shape[3] * layer.element_size() for layer in cache.layers)
    return per_token * block_tokens
