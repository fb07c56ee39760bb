"""All layers in one operation of the C++ kernels; the result is that of ``Gemma3nDecoderLayer``.

Shapes: M new tokens, each with a slot and a position; N AltUp streams, H hidden, P per-layer input.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gemma_model.cpu.kernels import LANES, ops
from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.layers.rotary import rotary_cos_sin
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.models.gemma3n.decoder_layer import Gemma3nDecoderLayer

NO_SCALE = torch.empty(0)


def supports(config: Gemma3nDecoderConfig) -> bool:
    """Whether the kernels can run such a decoder: they read complete vectors."""
    widths = (config.hidden_size, config.head_dim, config.hidden_size_per_layer_input)
    return all(width % LANES == 0 for width in (*widths, *config.intermediate_size))


def last_rows(batches: Sequence[Batch], keep: int) -> Tensor | None:
    """Which tokens of all batches are among the last ``keep`` of their row; ``None``: all of them."""
    if all(batch.tokens <= keep for batch in batches):
        return None
    found: list[int] = []
    end = 0
    for batch in batches:
        for _ in batch.slots:
            end += batch.tokens
            found.extend(range(end - min(keep, batch.tokens), end))
    return torch.tensor(found, dtype=torch.long)


class FusedLayers:
    """The layers that a decoder runs, with everything prepared that is the same in each step.

    Args:
        layers: by their numbers in the checkpoint, in the order in which they run.
        last: the index of the last one that stores keys and values.
    """

    def __init__(
        self, config: Gemma3nDecoderConfig, layers: Sequence[tuple[int, Gemma3nDecoderLayer]], last: int
    ) -> None:
        self._numbers, own = zip(*layers, strict=True)
        types = list(dict.fromkeys(layer.layer_type for layer in own))
        self._specs = [config.attention[layer_type] for layer_type in types]
        self._types = [types.index(layer.layer_type) for layer in own]
        self._parts = [part for layer in own for part in _parts(layer)]
        self._sparsity_zscores = [layer.mlp.sparsity_zscore for layer in own]
        first = own[0]
        self._constants = first.altup.active, first.self_attn.num_heads, config.rms_norm_eps, last

    def __call__(
        self,
        streams: Tensor,
        per_layer_inputs: Sequence[Tensor],
        batches: Sequence[Batch],
        cache: KVCache,
        kept: Tensor | None = None,
    ) -> Tensor:
        """All layers: ``[M, N, H]`` → ``[M, N, H]``, or of the tokens that are kept.

        Args:
            streams: of each token.
            per_layer_inputs: of each layer, ``[M, P]``; of those after ``last`` for the kept tokens alone.
            batches: slots and positions; the tokens of all batches are concatenated.
            cache: all slots.
            kept: the tokens whose logits are wanted, int64; ``None``: all.
        """
        chunks = [(*own, b.tokens) for b in batches for own in zip(b.slots, b.starts, strict=True)]
        positions = torch.tensor([p for _, start, tokens in chunks for p in range(start, start + tokens)])
        cos_sin = [rotary_cos_sin(positions, spec) for spec in self._specs]
        result: Tensor = ops.gemma3n_layers(
            streams,
            per_layer_inputs,
            self._parts,
            self._sparsity_zscores,
            [cache.layer(number) for number in self._numbers],
            self._types,
            [cos for cos, _ in cos_sin],
            [sin for _, sin in cos_sin],
            [spec.window or cache.length for spec in self._specs],
            torch.tensor(chunks),
            *self._constants,
            kept,
        )
        return result


def _parts(layer: Gemma3nDecoderLayer) -> tuple[Tensor, ...]:
    """The weights of a layer, in the order of ``Part`` in ``cpu/gemma3n/decoder_layer.h``."""
    altup, attention, mlp, laurel = layer.altup, layer.self_attn, layer.mlp, layer.laurel
    scale = altup.correct_output_scale
    gate_proj, up_proj = mlp.first_neurons(mlp.down_proj.weight.shape[1])
    return (
        altup.router_norm.weight,
        altup.modality_router.weight.operand,
        altup.prediction_coefs.weight.operand,
        altup.correction_coefs.weight.operand,
        NO_SCALE if scale is None else scale,
        layer.input_layernorm.weight,
        attention.qkv_proj.weight.operand,
        attention.qk_norm,
        attention.o_proj.weight.operand,
        layer.post_attention_layernorm.weight,
        laurel.linear_left.weight.operand,
        laurel.linear_right.weight.operand,
        laurel.post_laurel_norm.weight,
        layer.pre_feedforward_layernorm.weight,
        gate_proj.operand,
        up_proj.operand,
        mlp.down_proj.weight.operand,
        layer.post_feedforward_layernorm.weight,
        layer.per_layer_input_gate.weight.operand,
        layer.per_layer_projection.weight.operand,
        layer.post_per_layer_input_norm.weight,
    )
