"""The decoder's configuration, from ``config.json``; what cannot be honoured is refused by name.

Names are the checkpoint's own. Values that are missing there are transformers' own defaults, which are E4B's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gemma_wire import InvalidRequest

LayerType = Literal["sliding_attention", "full_attention"]
LAYER_TYPES: tuple[LayerType, ...] = ("sliding_attention", "full_attention")
THETA = {
    "sliding_attention": ("rope_local_base_freq", 10_000.0),
    "full_attention": ("rope_theta", 1_000_000.0),
}

# What the code takes for granted: a checkpoint that says otherwise is refused, never misread.
TAKEN_FOR_GRANTED: Mapping[str, tuple[Any, ...]] = {
    "hidden_activation": ("gelu_pytorch_tanh",),
    "attention_bias": (False,),
    "tie_word_embeddings": (True,),
    "use_bidirectional_attention": (False, None),
    "rope_scaling": (None,),
    "quantization_config": (None,),
}


@dataclass(frozen=True)
class TextConfig:
    """The numbers of the decoder, as the checkpoint names them; every per-layer value is spelled out."""

    vocab_size: int
    hidden_size: int
    intermediate_size: tuple[int, ...]
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    sliding_window: int
    layer_types: tuple[LayerType, ...]
    rope_theta: Mapping[LayerType, float]
    final_logit_softcapping: float | None
    vocab_size_per_layer_input: int
    hidden_size_per_layer_input: int
    altup_active_idx: int
    altup_correct_scale: bool
    altup_num_inputs: int
    num_kv_shared_layers: int
    laurel_rank: int
    activation_sparsity_pattern: tuple[float, ...]

    @property
    def first_kv_shared_layer(self) -> int:
        """The number of layers that store keys and values; those after them borrow."""
        return self.num_hidden_layers - self.num_kv_shared_layers

    @property
    def query_groups(self) -> int:
        """Query heads per key/value head."""
        return self.num_attention_heads // self.num_key_value_heads

    def kv_source(self, layer: int) -> int:
        """The layer whose keys and values this one reads: itself, or the last storing one of its type."""
        if layer < self.first_kv_shared_layer:
            return layer
        wanted = self.layer_types[layer]
        return max(i for i in range(self.first_kv_shared_layer) if self.layer_types[i] == wanted)

    @property
    def kv_lenders(self) -> frozenset[int]:
        """The storing layers that others borrow from."""
        return frozenset(map(self.kv_source, range(self.first_kv_shared_layer, self.num_hidden_layers)))

    @staticmethod
    def read(config: Mapping[str, Any]) -> "TextConfig":
        """From ``config.json`` of a whole checkpoint or of its text part alone.

        Raises:
            InvalidRequest: naming the key that the code cannot honour.
        """
        text: Mapping[str, Any] = config.get("text_config") or config
        if text.get("model_type") != "gemma3n_text":
            raise InvalidRequest(f"{text.get('model_type')!r} is no Gemma 3n text model", "config.model_type")
        for key, accepted in TAKEN_FOR_GRANTED.items():
            for level in (config, text):
                if level.get(key, accepted[0]) not in accepted:
                    raise _refused(key, level[key], f"only {accepted[0]!r} is")
        parsed = _parse(text)
        _check(parsed)
        return parsed


def _parse(text: Mapping[str, Any]) -> TextConfig:
    layers = int(text.get("num_hidden_layers", 35))
    cap = text.get("final_logit_softcapping", 30.0)
    sparsity = _per_layer(text, "activation_sparsity_pattern", layers, _sparsity(layers))
    return TextConfig(
        vocab_size=int(text.get("vocab_size", 262_400)),
        hidden_size=int(text.get("hidden_size", 2048)),
        intermediate_size=_per_layer(text, "intermediate_size", layers, [16_384] * layers),
        num_hidden_layers=layers,
        num_attention_heads=int(text.get("num_attention_heads", 8)),
        num_key_value_heads=int(text.get("num_key_value_heads", 2)),
        head_dim=int(text.get("head_dim", 256)),
        max_position_embeddings=int(text.get("max_position_embeddings", 32_768)),
        rms_norm_eps=float(text.get("rms_norm_eps", 1e-6)),
        sliding_window=int(text.get("sliding_window", 512)),
        layer_types=_layer_types(text, layers),
        rope_theta={kind: _theta(text, kind) for kind in LAYER_TYPES},
        final_logit_softcapping=None if cap is None else float(cap),
        vocab_size_per_layer_input=int(text.get("vocab_size_per_layer_input", 262_144)),
        hidden_size_per_layer_input=int(text.get("hidden_size_per_layer_input", 256)),
        altup_active_idx=int(text.get("altup_active_idx", 0)),
        altup_correct_scale=bool(text.get("altup_correct_scale", True)),
        altup_num_inputs=int(text.get("altup_num_inputs", 4)),
        num_kv_shared_layers=int(text.get("num_kv_shared_layers", 15)),
        laurel_rank=int(text.get("laurel_rank", 64)),
        activation_sparsity_pattern=sparsity,
    )


def _per_layer(text: Mapping[str, Any], key: str, layers: int, default: Sequence[Any]) -> tuple[Any, ...]:
    value = text.get(key)
    values = default if value is None else value
    values = tuple(values) if isinstance(values, Sequence) else (values,) * layers
    if len(values) != layers:
        raise InvalidRequest(f"has {len(values)} values for {layers} layers", f"text_config.{key}")
    return values


def _sparsity(layers: int) -> list[float]:
    sparse = 10 if layers > 10 else 0
    return [0.95] * sparse + [0.0] * (layers - sparse)


def _layer_types(text: Mapping[str, Any], layers: int) -> tuple[LayerType, ...]:
    every_fifth = [LAYER_TYPES[(i + 1) % 5 == 0] for i in range(layers)]
    types = _per_layer(text, "layer_types", layers, every_fifth)
    for kind in types:
        if kind not in LAYER_TYPES:
            raise _refused("layer_types", kind, f"{' and '.join(LAYER_TYPES)} are")
    return types


def _theta(text: Mapping[str, Any], kind: LayerType) -> float:
    """The base of the rotary frequencies: new files keep it per layer type, published ones in two keys."""
    old_key, default = THETA[kind]
    parameters = (text.get("rope_parameters") or {}).get(kind) or {}
    if parameters.get("rope_type", "default") != "default":
        raise _refused("rope_parameters", parameters["rope_type"], "only 'default' is")
    return float(parameters.get("rope_theta", text.get(old_key, default)))


def _check(config: TextConfig) -> None:
    """Numbers that contradict each other.

    Raises:
        InvalidRequest: naming one of them.
    """
    shared, layers = config.num_kv_shared_layers, config.num_hidden_layers
    storing = config.layer_types[: config.first_kv_shared_layer]
    orphans = set(config.layer_types) - set(storing)
    complaints = {
        "num_kv_shared_layers": shared >= layers or bool(orphans),
        "num_key_value_heads": config.num_attention_heads % config.num_key_value_heads != 0,
        "altup_active_idx": not 0 <= config.altup_active_idx < config.altup_num_inputs,
        "sliding_window": config.sliding_window < 1,
        "head_dim": config.head_dim % 2 != 0,
        "activation_sparsity_pattern": not all(0 <= p < 1 for p in config.activation_sparsity_pattern),
    }
    for key, wrong in complaints.items():
        if wrong:
            raise InvalidRequest(
                f"{getattr(config, key)} contradicts the rest of the file", f"text_config.{key}"
            )


def _refused(key: str, value: object, instead: str) -> InvalidRequest:
    return InvalidRequest(f"{value!r} is not supported, {instead}", f"text_config.{key}")
