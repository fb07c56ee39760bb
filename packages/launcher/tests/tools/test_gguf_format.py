from pathlib import Path

import pytest

from gemma_launcher.tools.memory_planner.gguf_format import BITS_IN_MEMORY, format_of_gguf
from gemma_wire.gguf import GGUF, TensorInfo
from gemma_wire.gguf_types import BLOCK_TYPES

TYPES = {kind.name: kind for kind in BLOCK_TYPES.values()}


def model(**tensors: tuple[tuple[int, ...], str]) -> GGUF:
    infos = {
        name.replace("__", "."): TensorInfo(name, shape, TYPES[kind], Path(), 0)
        for name, (shape, kind) in tensors.items()
    }
    return GGUF((), {}, infos)


def test_bytes_of_a_weight_by_the_kind_of_its_matrix() -> None:
    found = format_of_gguf(
        model(
            token_embd__weight=((1024, 256), "Q6_K"),
            per_layer_token_embd__weight=((1024, 512), "Q6_K"),
            blk__0__attn_v__weight=((256, 256), "Q4_K"),
            blk__1__attn_v__weight=((256, 256), "Q6_K"),
            blk__0__laurel_l__weight=((8, 256), "F32"),
            blk__0__attn_norm__weight=((256,), "F32"),
        ),
        item=2,
    )
    assert found.name == "GGUF, Q4_K and Q6_K"
    assert found.bytes_of_kind == {
        "embed_tokens": 9 / 8,
        "embed_tokens_per_layer": pytest.approx(210 / 256),  # as in the file, where it stays
        "v_proj": (5 / 8 + 9 / 8) / 2,
        "linear_left": 2,
    }


def test_a_file_without_quantised_tensors() -> None:
    found = format_of_gguf(model(token_embd__weight=((64, 32), "BF16")), item=2)
    assert (found.name, found.bytes_of_kind) == ("GGUF, dense", {"embed_tokens": 2})


def test_every_block_type_has_a_size_in_memory() -> None:
    assert BITS_IN_MEMORY.keys() == TYPES.keys() - {"F32", "F16", "BF16"}
