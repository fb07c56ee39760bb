"""The tensors of a text model and their shapes, to check a GGUF file before any of them is read."""

from collections.abc import Mapping
from typing import Any

from gemma_model.gguf_checkpoint.metadata import shape_of
from gemma_wire.gguf import GGUF, refuse

Shapes = dict[str, tuple[int, ...]]


def check_tensors(model: GGUF, config: Mapping[str, Any]) -> None:
    """Check that the file has all tensors of its model, in the right shapes, and no others.

    Args:
        model: its header.
        config: what its metadata say.

    Raises:
        InvalidRequest: naming a tensor.
    """
    needed, optional = _expected_shapes(model, config)
    if missing := needed.keys() - model.tensors.keys():
        raise refuse(model.files[0], f"lacks {len(missing)} tensors of the model, such as {min(missing)!r}")
    for name, info in model.tensors.items():
        shape = needed.get(name, optional.get(name))
        if shape is None:
            raise refuse(
                info.file, f"has the tensor {name!r}, which no {model.architecture} of {_size(config)} has"
            )
        if info.shape != shape:
            raise refuse(
                info.file,
                f"has the tensor {name!r} of shape {list(info.shape)}; its metadata say {list(shape)}",
            )


def _expected_shapes(model: GGUF, config: Mapping[str, Any]) -> tuple[Shapes, Shapes]:
    """The tensors that a model has, and those that it may have; names are those of GGUF."""
    vocabulary, hidden = config["vocab_size"], config["hidden_size"]
    needed: Shapes = {"token_embd.weight": (vocabulary, hidden), "output_norm.weight": (hidden,)}
    optional: Shapes = {"output.weight": (vocabulary, hidden)}
    if config["model_type"] == "gemma3n_text":
        needed |= _gemma3n_shapes(config, shape_of(model, "per_layer_token_embd.weight", 2)[0])
    for number in range(config["num_hidden_layers"]):
        shapes = _layer_shapes(config, number)
        stores = number < config["num_hidden_layers"] - config.get("num_kv_shared_layers", 0)
        for name, shape in shapes.items():
            unused = not stores and name in ("attn_k", "attn_v", "attn_k_norm")
            (optional if unused else needed)[f"blk.{number}.{name}.weight"] = shape
    return needed, optional


def _size(config: Mapping[str, Any]) -> str:
    return f"{config['num_hidden_layers']} layers"


def _layer_shapes(config: Mapping[str, Any], number: int) -> Shapes:
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    widths = config["intermediate_size"]
    width = widths if isinstance(widths, int) else widths[number]
    norms = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    shapes: Shapes = {
        **dict.fromkeys(norms, (hidden,)),
        "attn_q": (queries, hidden),
        "attn_k": (keys, hidden),
        "attn_v": (keys, hidden),
        "attn_output": (hidden, queries),
        "attn_q_norm": (head,),
        "attn_k_norm": (head,),
        "ffn_gate": (width, hidden),
        "ffn_up": (width, hidden),
        "ffn_down": (hidden, width),
    }
    return shapes | (_gemma3n_layer_shapes(config) if config["model_type"] == "gemma3n_text" else {})


def _gemma3n_layer_shapes(config: Mapping[str, Any]) -> Shapes:
    hidden, streams, rank = config["hidden_size"], config["altup_num_inputs"], config["laurel_rank"]
    per_layer = config["hidden_size_per_layer_input"]
    shapes: Shapes = {
        "inp_gate": (per_layer, hidden),
        "proj": (hidden, per_layer),
        "post_norm": (hidden,),
        "altup_correct_coef": (streams, streams),
        "altup_predict_coef": (streams * streams, streams),
        "altup_router": (streams, hidden),
        "altup_router_norm": (hidden,),
        "laurel_l": (rank, hidden),
        "laurel_r": (hidden, rank),
        "laurel_post_norm": (hidden,),
    }
    return shapes | ({"altup_correct_scale": (hidden,)} if config["altup_correct_scale"] else {})


def _gemma3n_shapes(config: Mapping[str, Any], table_rows: int) -> Shapes:
    hidden, per_layer = config["hidden_size"], config["hidden_size_per_layer_input"]
    width, others = per_layer * config["num_hidden_layers"], config["altup_num_inputs"] - 1
    stacked = {name: (others, hidden, hidden) for name in ("altup_proj", "altup_unembd_proj") if others}
    shapes: Shapes = {
        **stacked,
        "per_layer_token_embd": (table_rows, width),
        "per_layer_model_proj": (width, hidden),
        "per_layer_proj_norm": (per_layer,),
    }
    return {f"{name}.weight": shape for name, shape in shapes.items()}
