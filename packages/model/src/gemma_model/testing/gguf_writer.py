"""Makes GGUF files of Gemma 3n checkpoints, with the writer of the package ``gguf``, which is needed for it.

Usage: ``python -m gemma_model.testing.gguf_writer CHECKPOINT FILE.gguf --kind Q8_0``.
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from gemma_model.weights.gguf_names import GEMMA3N, GEMMA3N_LAYER, STACKED, checkpoint_name
from gemma_model.weights.safetensors_files import open_safetensors
from gemma_wire.tensor_names import bare_name

ARCHITECTURE = "gemma3n"


def write_gguf(
    checkpoint: Path,
    path: Path,
    kind: str = "F32",
    *,
    tokenizer: bool = True,
    vocabulary: int | None = None,
    **changes: Any,
) -> Path:
    """Write the text part of a checkpoint.

    Args:
        checkpoint: a folder with safetensors.
        path: of the new file.
        kind: block type of the matrices whose width has complete blocks; the others are F32.
        tokenizer: write the tokenizer too.
        vocabulary: token ids to write; older files lack those of the encoders.
        changes: arguments of ``GGUFWriter``, such as ``split_max_tensors``.
    """
    config = json.loads((checkpoint / "config.json").read_text())["text_config"]
    writer = gguf.GGUFWriter(path, ARCHITECTURE, **changes)
    _add_config(writer, config)
    if tokenizer:
        _add_tokenizer(writer, json.loads((checkpoint / "tokenizer.json").read_text()), vocabulary)
    for name, tensor in gguf_tensors(checkpoint, config):
        _add_tensor(writer, name, tensor[:vocabulary] if name == "token_embd.weight" else tensor, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_tensors(checkpoint: Path, config: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the text part under their names in GGUF files."""
    tensors = {bare_name(key): stored.load() for key, stored in open_safetensors(checkpoint).items()}
    names = [*GEMMA3N, *(f"blk.{i}.{n}" for i in range(config["num_hidden_layers"]) for n in GEMMA3N_LAYER)]
    for name in names:
        tensor = tensors.get(checkpoint_name(ARCHITECTURE, name) or "")
        if isinstance(tensor, Tensor):
            yield name, tensor
    for name, pattern in STACKED.items():
        count = config["altup_num_inputs"] - 1
        matrices = [tensors[pattern.format(i)] for i in range(count)]
        if matrices:
            yield name, torch.stack([matrix for matrix in matrices if isinstance(matrix, Tensor)])


def _add_config(writer: Any, config: Mapping[str, Any]) -> None:
    layers = config["num_hidden_layers"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layers)
    widths = config["intermediate_size"]
    writer.add_feed_forward_length(widths if isinstance(widths, int) else list(widths))
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_sliding_window(config["sliding_window"])
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
    writer.add_shared_kv_layers(config["num_kv_shared_layers"])
    writer.add_altup_active_idx(config["altup_active_idx"])
    writer.add_altup_num_inputs(config["altup_num_inputs"])
    writer.add_embedding_length_per_layer_input(config["hidden_size_per_layer_input"])
    shares = config["activation_sparsity_pattern"]
    writer.add_activation_sparsity_scale([NormalDist().inv_cdf(p) if p else -math.inf for p in shares])


def _add_tokenizer(writer: Any, tokenizer: Mapping[str, Any], vocabulary: int | None) -> None:
    """As llama.cpp's converter writes a tokenizer.json."""
    vocab = {**tokenizer["model"]["vocab"], **{t["content"]: t["id"] for t in tokenizer["added_tokens"]}}
    added = {t["id"]: t["special"] for t in tokenizer["added_tokens"]}
    tokens = sorted(vocab, key=vocab.__getitem__)[:vocabulary]
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([t.replace("▁", " ") if vocab[t] in added else t for t in tokens])
    writer.add_token_types(
        [
            kinds.NORMAL if i not in added else kinds.CONTROL if added[i] else kinds.USER_DEFINED
            for i in range(len(tokens))
        ]
    )
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    for role, token in (("bos", "<bos>"), ("eos", "<eos>"), ("pad", "<pad>"), ("eot", "<end_of_turn>")):
        getattr(writer, f"add_{role}_token_id")(vocab[token])
    writer.add_chat_template("{{ bos_token }}")


def _add_tensor(writer: Any, name: str, tensor: Tensor, kind: str) -> None:
    type_ = gguf.GGMLQuantizationType[kind]
    block, _ = gguf.GGML_QUANT_SIZES[type_]
    values = tensor.float().numpy()
    if tensor.dim() == 1 or tensor.shape[-1] % block or ("altup_" in name and tensor.dim() == 2):
        type_ = gguf.GGMLQuantizationType.F32
    data = np.ascontiguousarray(values) if type_.name == "F32" else gguf.quants.quantize(values, type_)
    writer.add_tensor(name, data, raw_dtype=type_)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make a GGUF file of a Gemma 3n checkpoint.")
    parser.add_argument("checkpoint", type=Path, help="a folder with safetensors")
    parser.add_argument("file", type=Path)
    parser.add_argument("--kind", default="Q8_0", help="block type of the matrices")
    arguments = parser.parse_args(argv)
    write_gguf(arguments.checkpoint, arguments.file, arguments.kind)


if __name__ == "__main__":
    main()
