"""What the families read alike from the text part of ``config.json``. Unsupported values raise an error."""

from collections.abc import Mapping, Sequence
from typing import Any

from gemma_model.checkpoint import positive
from gemma_model.layers.specs import LAYER_TYPES, LayerType, Rope
from gemma_wire import InvalidRequest

THETA = {
    "sliding_attention": ("rope_local_base_freq", 10_000.0),
    "full_attention": ("rope_theta", 1_000_000.0),
}
ROPE_TYPES = ("default", "linear")

# The only values that the code supports: a checkpoint with another one is refused.
SUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "hidden_activation": ("gelu_pytorch_tanh",),
    "attention_bias": (False,),
    "tie_word_embeddings": (True,),
    "use_bidirectional_attention": (False, None),
    "attn_logit_softcapping": (None,),
}


def check_supported(*sections: Mapping[str, Any]) -> None:
    """Check the keys of ``SUPPORTED`` in sections of ``config.json``.

    Raises:
        InvalidRequest: naming the key whose value is not supported.
    """
    for key, accepted in SUPPORTED.items():
        for section in sections:
            if section.get(key, accepted[0]) not in accepted:
                raise refused(key, section[key], f"only {accepted[0]!r} is")


def per_layer(text: Mapping[str, Any], key: str, layers: int, default: Sequence[Any]) -> tuple[Any, ...]:
    """One value for each layer, from a list of them or from one for all."""
    value = text.get(key)
    values = default if value is None else value
    values = tuple(values) if isinstance(values, list | tuple) else (values,) * layers
    if len(values) != layers:
        raise InvalidRequest(f"has {len(values)} values for {layers} layers", f"text_config.{key}")
    return values


def read_layer_types(text: Mapping[str, Any], layers: int, period: int) -> tuple[LayerType, ...]:
    """The type of each layer; without the key the last of each ``period`` layers is a full one."""
    default = [LAYER_TYPES[(i + 1) % period == 0] for i in range(layers)]
    types = per_layer(text, "layer_types", layers, default)
    for kind in types:
        if kind not in LAYER_TYPES:
            raise refused("layer_types", kind, f"{' and '.join(LAYER_TYPES)} are")
    return types


def read_rope(text: Mapping[str, Any], kind: LayerType) -> Rope:
    """The rotary positions of a layer type.

    New files have an object for each layer type, in ``rope_parameters``. Published files have a key for the
    base of each type, and ``rope_scaling`` for full layers.
    """
    old_key, default = THETA[kind]
    every = text.get("rope_parameters") or {}
    own = every.get(kind) if isinstance(every, Mapping) else every
    scaling = text.get("rope_scaling") if kind == "full_attention" else None
    for key, value in (("rope_parameters", own), ("rope_scaling", scaling)):
        if not isinstance(value or {}, Mapping):
            raise refused(key, value, "only an object for each layer type is")
    parameters = {**(own or {}), **(scaling or {})}
    rope_type = parameters.get("rope_type", parameters.get("type", "default"))
    if rope_type not in ROPE_TYPES:
        key = "rope_scaling" if scaling else "rope_parameters"
        raise refused(key, rope_type, f"only {' and '.join(ROPE_TYPES)} are")
    theta = positive(parameters, "rope_theta", positive(text, old_key, default))
    return Rope(theta, positive(parameters, "factor", 1.0) if rope_type == "linear" else 1.0)


def refused(key: str, value: object, instead: str) -> InvalidRequest:
    """The error for a value that is not supported."""
    return InvalidRequest(f"{value!r} is not supported, {instead}", f"text_config.{key}")
