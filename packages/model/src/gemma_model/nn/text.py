"""The text decoder: a batch of slots, each at its own position, to logits.

Shapes: B rows of T new tokens each, M = B x T tokens, N AltUp streams, H hidden, P per-layer input.
"""

import math
from collections.abc import Sequence
from copy import copy
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gemma_model.nn.altup import AltUp, Streams
from gemma_model.nn.attention import KV, Attention, Batch, Reach, last_tokens
from gemma_model.nn.cache import KVCache
from gemma_model.nn.config import LayerType, TextConfig
from gemma_model.nn.matformer import Slice
from gemma_model.nn.mlp import MLP
from gemma_model.nn.ops import Linear, Norm, gelu
from gemma_model.nn.weights import Weights


class Embedding:
    """Token ids to the decoder's input.

    Args:
        weights: of the checkpoint.
    """

    def __init__(self, config: TextConfig, weights: Weights) -> None:
        self.table = weights.take("embed_tokens.weight")  # [vocab, H], the output head too
        weights.leave(["lm_head.weight"], "tied to embed_tokens")
        self._scale = torch.tensor(
            math.sqrt(config.hidden_size), dtype=self.table.dtype
        ).item()  # rounded too
        self._hard: tuple[int, Tensor] | None = None

    def set_hard(self, offset: int, embeddings: Tensor) -> None:
        """Ids from ``offset`` on are the towers' own: ``[n, H]``, as their embedders make them."""
        self._hard = offset, embeddings

    def __call__(self, ids: Tensor) -> Tensor:
        """``[M]`` → ``[M, H]``."""
        embedded = F.embedding(ids, self.table) * self._scale
        if self._hard is None:
            return embedded
        offset, table = self._hard
        hard = F.embedding((ids - offset).clamp(min=0), table)
        return torch.where((ids >= offset).unsqueeze(1), hard, embedded)


class PerLayerTable:
    """A second embedding, one row per token for all layers; so large that it stays in the file.

    Args:
        weights: of the checkpoint.
        on_device: load it onto the device instead of gathering rows from the memory-mapped file.
    """

    def __init__(self, config: TextConfig, weights: Weights, on_device: bool = False) -> None:
        name = "embed_tokens_per_layer.weight"
        self._known = config.vocab_size_per_layer_input
        self.table = weights.take(name) if on_device else weights.take_mapped(name)

    def rows(self, ids: Sequence[int], like: Tensor) -> Tensor:
        """Rows of some tokens, ``[M, layers x P]``, as ``like`` is; ids that the table lacks read row 0."""
        known = [i if 0 <= i < self._known else 0 for i in ids]
        gathered = F.embedding(torch.tensor(known, device=self.table.device), self.table)
        return gathered.to(like.device, like.dtype)


class PerLayerInputs:
    """What the layers of a range get besides the residual streams.

    Args:
        weights: of the checkpoint.
        projection: ``[layers x P, H]``, of all layers.
        norm: of the projection.
        layers: the range.
    """

    def __init__(self, config: TextConfig, projection: Tensor, norm: Norm, layers: range) -> None:
        self._width, self._layers, self._norm = config.hidden_size_per_layer_input, layers, norm
        self._part = slice(layers.start * self._width, layers.stop * self._width)
        self._project = Linear(projection[self._part])
        self._scale = config.hidden_size**-0.5

    def __call__(self, x: Tensor, table_rows: Tensor) -> Sequence[Tensor]:
        """Embeddings ``[M, H]`` and rows ``[M, all layers x P]`` → ``[M, P]`` for each layer of the range."""
        shape = (x.shape[0], len(self._layers), self._width)
        projected = self._norm((self._project(x) * self._scale).view(shape))
        looked_up = table_rows[:, self._part].reshape(shape) * math.sqrt(self._width)
        both = (projected + looked_up) * math.sqrt(0.5)
        return [both[:, i] for i in range(len(self._layers))]


class Layer:
    """One decoder layer.

    Args:
        weights: of the checkpoint.
        number: its number.
    """

    def __init__(self, config: TextConfig, weights: Weights, number: int) -> None:
        prefix = f"layers.{number}."
        self.kind: LayerType = config.layer_types[number]

        def norm(name: str) -> Norm:
            return Norm(config.hidden_size, config.rms_norm_eps, weights.take(f"{prefix}{name}.weight"))

        def linear(name: str) -> Linear:
            return Linear(weights.take(f"{prefix}{name}.weight"))

        self._altup = AltUp(config, weights, prefix + "altup.")
        self._attention = Attention(config, weights, number)
        self.mlp = MLP.take(config, weights, number)
        self._input_norm = norm("input_layernorm")
        self._post_attention_norm = norm("post_attention_layernorm")
        self._pre_mlp_norm, self._post_mlp_norm = (
            norm("pre_feedforward_layernorm"),
            norm("post_feedforward_layernorm"),
        )
        self._laurel_left, self._laurel_right = linear("laurel.linear_left"), linear("laurel.linear_right")
        self._post_laurel_norm = norm("laurel.post_laurel_norm")
        self._gate, self._project = linear("per_layer_input_gate"), linear("per_layer_projection")
        self._post_projection_norm = norm("post_per_layer_input_norm")

    def __call__(
        self,
        streams: Tensor,
        per_layer_input: Tensor,
        reach: Reach,
        cached: Tensor | None,
        lent: KV | None,
        keep: int,
    ) -> tuple[Tensor, KV]:
        """``[M, N, H]`` → ``[B x keep, N, H]``, and the keys and values it attended to.

        Args:
            streams: of all tokens of the batch.
            per_layer_input: of each token, ``[M, P]``.
            reach: of layers of this type.
            cached: its part of the cache, if it stores any.
            lent: else the keys and values of the layer that it borrows from.
            keep: the last tokens of each row, which go on; all others leave their keys and values alone.
        """
        predicted = self._altup.predict(streams)
        x = self._input_norm(predicted[:, self._altup.active])
        query, seen = self._attention.project(x, reach, cached, lent)
        if not keep:
            return streams[:0], seen
        predicted, x, per_layer_input, query = (
            last_tokens(t, reach.batch.tokens, keep) for t in (predicted, x, per_layer_input, query)
        )
        attended = self._post_attention_norm(self._attention.attend(query, reach.last(keep), seen))
        laurel = x + self._post_laurel_norm(self._laurel_right(self._laurel_left(x)))
        x = (predicted[:, self._altup.active] + attended + laurel) * math.sqrt(0.5)
        x = x + self._post_mlp_norm(self.mlp(self._pre_mlp_norm(x)))
        corrected = self._altup.correct(predicted, x)
        corrected[:, 1:] += self._per_layer(corrected, per_layer_input).unsqueeze(1)
        return corrected, seen

    def sliced(self, size: int) -> "Layer":
        """The same layer with a smaller feed-forward part, on the same tensors."""
        other = copy(self)
        other.mlp = self.mlp.sliced(size)
        return other

    def _per_layer(self, corrected: Tensor, per_layer_input: Tensor) -> Tensor:
        gated = gelu(self._gate(self._altup.scaled_active(corrected))) * per_layer_input
        return self._post_projection_norm(self._project(gated))


class Decoder:
    """All layers, and the head.

    Args:
        weights: of the checkpoint; its text part is used up.
        table_on_device: keep the per-layer table on the device too.
    """

    def __init__(self, config: TextConfig, weights: Weights, table_on_device: bool = False) -> None:
        self.config = config
        self.embed = Embedding(config, weights)
        self.per_layer_table = PerLayerTable(config, weights, table_on_device)
        norm = Norm(
            config.hidden_size_per_layer_input,
            config.rms_norm_eps,
            weights.take("per_layer_projection_norm.weight"),
        )
        projection = weights.take("per_layer_model_projection.weight")
        self._inputs_of = partial(PerLayerInputs, config, projection, norm)
        self._storing = range(config.first_kv_shared_layer)
        self.sharing = range(config.first_kv_shared_layer, config.num_hidden_layers)
        self._storing_inputs = self._inputs_of(self._storing)
        self.sharing_inputs = self._inputs_of(self.sharing)
        self._streams = Streams(config, weights)
        self.layers = [Layer(config, weights, number) for number in range(config.num_hidden_layers)]
        self._norm = Norm(config.hidden_size, config.rms_norm_eps, weights.take("norm.weight"))
        self._head = Linear(self.embed.table)

    def sliced(self, nested: Slice) -> "Decoder":
        """A model nested in this one, on the same tensors; it may use the same cache, not what is in it.

        Raises:
            InvalidRequest: when it is not there.
        """
        nested.check(self.config)
        other = copy(self)
        first = self.config.first_kv_shared_layer + len(nested.skipped)
        other.sharing = range(first, self.config.num_hidden_layers)
        other.sharing_inputs = self._inputs_of(other.sharing)
        other.layers = [
            layer if number in nested.skipped else layer.sliced(nested.size_of(number))
            for number, layer in enumerate(self.layers)
        ]
        return other

    def __call__(
        self, x: Tensor, table_rows: Tensor, batch: Batch, cache: KVCache, keep: int
    ) -> Tensor | None:
        """Run a batch, and write its keys and values into the cache.

        Only the last ``keep`` tokens of each row go through what nobody else depends on: the last storing
        layer behind its keys and values, and the layers that store none. That changes no result.

        Args:
            x: embeddings, ``[M, H]``.
            table_rows: of the per-layer table, ``[M, layers x P]``.
            batch: which slots and positions.
            cache: all slots.
            keep: tokens of each row whose logits are wanted.

        Returns:
            Logits, ``[B x keep, vocab]`` fp32; ``None`` when none are wanted.
        """
        reaches = {k: Reach.of(self.config, batch, k, cache, x) for k in set(self.config.layer_types)}
        lent: dict[LayerType, KV] = {}
        streams = self._streams.split(x)
        for number, given in zip(self._storing, self._storing_inputs(x, table_rows), strict=True):
            layer, going_on = self.layers[number], keep if number == self._storing[-1] else batch.tokens
            reach, cached = reaches[layer.kind], cache.layers[number]
            streams, lent[layer.kind] = layer(streams, given, reach, cached, None, going_on)
        if not keep:
            return None
        x, table_rows = (last_tokens(t, batch.tokens, keep) for t in (x, table_rows))
        reaches = {kind: reach.last(keep) for kind, reach in reaches.items()}
        for number, given in zip(self.sharing, self.sharing_inputs(x, table_rows), strict=True):
            layer = self.layers[number]
            streams, _ = layer(streams, given, reaches[layer.kind], None, lent[layer.kind], keep)
        return self._logits(self._norm(self._streams.merge(streams)))

    def _logits(self, x: Tensor) -> Tensor:
        logits = self._head(x).float()
        cap = self.config.final_logit_softcapping
        return logits if cap is None else torch.tanh(logits / cap) * cap
