"""The tensors of the prefix cache: blocks of tokens with their keys and values of all layers."""

from collections.abc import Sequence
from typing import NamedTuple

from gemma_model.layers.kv_cache import KVCache


class Piece(NamedTuple):
    """Tokens that follow each other both in the pool and in a slot."""

    in_pool: int
    column: int
    tokens: int


class KVBlockPool:
    """One tensor per storing layer, ``[2 x kv_heads, blocks x block_tokens, head_dim]``, keys before values.

    Host memory is taken only when a block is first written.

    Args:
        cache: of all slots; the pool is on its device and has its dtype.
        blocks: number of blocks.
        block_tokens: tokens of a block.
    """

    def __init__(self, cache: KVCache, blocks: int, block_tokens: int) -> None:
        self._cache, self._tokens = cache, block_tokens
        self._layers = [
            layer.new_empty(layer.shape[1], blocks * block_tokens, layer.shape[3]) for layer in cache.layers
        ]

    def save(self, slot: int, start: int, blocks: Sequence[int]) -> None:
        """Copy the tokens of a slot from the position ``start`` on, which all its rings still hold."""
        pieces = {
            ring: self._pieces(start, blocks, ring) for ring in {x.shape[2] for x in self._cache.layers}
        }
        for own, pool in zip(self._cache.layers, self._layers, strict=True):
            for at, column, count in pieces[own.shape[2]]:
                pool[:, at : at + count] = own[slot, :, column : column + count]

    def load(self, slot: int, start: int, blocks: Sequence[int]) -> None:
        """Copy blocks to a slot, from the position ``start`` on; to a ring only what a later token sees."""
        stop = start + len(blocks) * self._tokens
        pieces: dict[tuple[int, int], list[Piece]] = {}
        for own, pool, window in zip(self._cache.layers, self._layers, self._cache.windows, strict=True):
            unseen = 0 if window is None else max(0, stop - window + 1 - start)
            layout = own.shape[2], unseen
            if layout not in pieces:
                pieces[layout] = self._pieces(start, blocks, *layout)
            for at, column, count in pieces[layout]:
                own[slot, :, column : column + count] = pool[:, at : at + count]

    def _pieces(self, start: int, blocks: Sequence[int], columns: int, skipped: int = 0) -> list[Piece]:
        """The tokens of blocks in a slot from the position ``start`` on, without the first ``skipped``."""
        pieces: list[Piece] = []
        for place in range(skipped // self._tokens, len(blocks)):
            done = max(0, skipped - place * self._tokens)
            while done < self._tokens:
                at, column = (
                    blocks[place] * self._tokens + done,
                    (start + place * self._tokens + done) % columns,
                )
                count = min(self._tokens - done, columns - column)
                last = pieces[-1] if pieces else Piece(-1, -1, 0)
                if (last.in_pool + last.tokens, last.column + last.tokens) == (at, column):
                    pieces[-1] = last._replace(tokens=last.tokens + count)
                else:
                    pieces.append(Piece(at, column, count))
                done += count
        return pieces


def block_bytes(cache: KVCache, block_tokens: int) -> int:
    """Bytes of one block in all layers."""
    per_token = sum(layer.shape[1] * layer.shape[3] * layer.element_size() for layer in cache.layers)
    return per_token * block_tokens
