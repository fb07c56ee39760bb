"""Decoded matrices, compared with what the package ``compressed-tensors`` makes of the same tensors."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gemma_model.weights import open_weights
from gemma_model.weights.open_weights import open_folder
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.stored_tensor import StoredTensor
from gemma_wire import InvalidRequest

NAME = "model.language_model.layers.0.mlp.down_proj"
OUT, IN = 24, 128
LARGEST_SCALE = 0.3
ROWS = torch.tensor([3, 0, 23, 3])


def config(format_: str = "pack-quantized", **weights: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": True, **weights}}
    return {
        "quant_method": "compressed-tensors",
        "format": format_,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def write(folder: Path, section: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"quantization_config": section}))
    return folder


def reference(section: dict[str, Any], scale: torch.dtype, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Tensors that the package stores for a random matrix, and the matrix that it reads from them."""
    compressors = pytest.importorskip("compressed_tensors.compressors", reason="needs compressed-tensors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    args = quantization.QuantizationArgs(**section["config_groups"]["group_0"]["weights"])
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    random = torch.Generator().manual_seed(seed)
    groups = {"group": IN // (args.group_size or IN), "channel": 1}.get(str(args.strategy), 0)
    shape = (OUT, groups) if groups else (1,)
    state = {
        "weight": torch.randn(OUT, IN, generator=random, dtype=torch.float32),
        "weight_scale": (torch.rand(shape, generator=random) * LARGEST_SCALE).to(scale),
    }
    if not args.symmetric:
        limit = 2 ** (args.num_bits - 1)
        state["weight_zero_point"] = torch.randint(-limit, limit, shape, generator=random, dtype=torch.int8)
    compressor = compressors.BaseCompressor.get_value_from_registry(section["format"])
    stored = compressor.compress(state, scheme)
    return stored, compressor.decompress(dict(stored), scheme)["weight"]


def named(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{NAME}.{suffix}": tensor for suffix, tensor in stored.items()}


def opened(folder: Path) -> StoredTensor:
    tensors = open_folder(folder)
    assert tensors.keys() == {f"{NAME}.weight"}
    return tensors[f"{NAME}.weight"]


GROUP: dict[str, Any] = {"strategy": "group", "group_size": 32}
CHANNEL: dict[str, Any] = {"strategy": "channel"}


@pytest.mark.parametrize("scale", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    "section",
    [
        pytest.param(config(name, num_bits=bits, symmetric=symmetric, **strategy), id=f"{name}{bits}{label}")
        for name in ("pack-quantized", "int-quantized")
        for bits in (4, 8)
        for symmetric in (True, False)
        for label, strategy in (
            ("-by-32", GROUP),
            ("-by-64", {**GROUP, "group_size": 64}),
            ("-by-row", CHANNEL),
        )
        if name == "pack-quantized" or bits == 8
    ],
)
def test_integers_are_decoded_exactly(tmp_path: Path, section: dict[str, Any], scale: torch.dtype) -> None:
    weights = section["config_groups"]["group_0"]["weights"]
    stored, expected = reference(section, scale, seed=1)
    tensor = opened(write(tmp_path / "c", section, named(stored)))
    matrix = tensor.load()
    assert isinstance(matrix, QuantizedTensor)
    assert matrix.bits == weights["num_bits"]
    assert (matrix.offsets is None) == weights["symmetric"]
    assert matrix.group_size == weights.get("group_size", IN)
    rounded = scale is torch.float32 and not weights["symmetric"]  # the product of zero point and scale
    error = 255 * LARGEST_SCALE * 2**-23 if rounded else 0
    torch.testing.assert_close(matrix.dequantize(scale), expected, rtol=0, atol=error)
    some = tensor.decode(*(part[ROWS] for part in tensor.parts()))
    assert isinstance(some, QuantizedTensor)
    torch.testing.assert_close(some.dequantize(scale), matrix.dequantize(scale)[ROWS], rtol=0, atol=0)


@pytest.mark.parametrize("scale", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("strategy", ["tensor", "channel"])
def test_fp8_is_decoded_exactly_to_a_dense_matrix(tmp_path: Path, strategy: str, scale: torch.dtype) -> None:
    section = config("float-quantized", num_bits=8, type="float", strategy=strategy)
    stored, expected = reference(section, scale, seed=3)
    tensor = opened(write(tmp_path / "c", section, named(stored)))
    matrix = tensor.load()
    assert isinstance(matrix, Tensor)
    torch.testing.assert_close(matrix, expected, rtol=0, atol=0)
    some = tensor.decode(*(part[ROWS] for part in tensor.parts()))
    assert isinstance(some, Tensor)
    torch.testing.assert_close(some, expected[ROWS], rtol=0, atol=0)


def test_one_scale_for_a_matrix_of_integers(tmp_path: Path) -> None:
    section = config("int-quantized", num_bits=8, strategy="tensor")
    stored, expected = reference(section, torch.bfloat16, seed=4)
    matrix = opened(write(tmp_path / "c", section, named(stored))).load()
    assert isinstance(matrix, QuantizedTensor)
    torch.testing.assert_close(matrix.dequantize(torch.bfloat16), expected, rtol=0, atol=0)


def test_four_bits_are_not_copied(tmp_path: Path) -> None:
    stored, _ = reference(config(**GROUP), torch.bfloat16, seed=5)
    tensor = opened(write(tmp_path / "c", config(**GROUP), named(stored)))
    packed, _ = tensor.parts()
    matrix = tensor.decode(*tensor.parts())
    assert isinstance(matrix, QuantizedTensor)
    assert matrix.quants.data_ptr() == tensor.parts()[0].data_ptr() == packed.data_ptr()


def test_tensors_of_activations_are_not_used(tmp_path: Path) -> None:
    section = config("int-quantized", num_bits=8, **CHANNEL)
    section["config_groups"]["group_0"]["input_activations"] = {"num_bits": 8, "dynamic": False}
    stored, expected = reference(config("int-quantized", num_bits=8, **CHANNEL), torch.bfloat16, seed=6)
    stored["input_scale"] = torch.ones(1)
    matrix = opened(write(tmp_path / "c", section, named(stored))).load()
    assert isinstance(matrix, QuantizedTensor)
    torch.testing.assert_close(matrix.dequantize(torch.bfloat16), expected, rtol=0, atol=0)


def test_dense_tensors_stay_dense(tmp_path: Path) -> None:
    stored, _ = reference(config(**GROUP), torch.bfloat16, seed=7)
    dense = {
        "model.language_model.layers.0.self_attn.q_norm.weight": torch.randn(4),
        "model.language_model.layers.0.altup.correct_output_scale": torch.randn(4).bfloat16(),
        "model.language_model.layers.0.self_attn.q_proj.weight": torch.randn(8, 8).bfloat16(),
    }
    folder = write(tmp_path / "c", config(**GROUP), named(stored) | dense)
    tensors = open_folder(folder)
    assert tensors.keys() == {f"{NAME}.weight", *dense}
    for key, expected in dense.items():
        loaded = tensors[key].load()
        assert isinstance(loaded, Tensor)
        torch.testing.assert_close(loaded, expected, rtol=0, atol=0)
    weights = open_weights(folder, dtype=torch.bfloat16)
    assert weights.take_matrix("layers.0.mlp.down_proj.weight").shape == (OUT, IN)


DAMAGES: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "no scales": ({"weight_scale": None}, r"there is no tensor .*down_proj.weight_scale; the file has only"),
    "no shape": ({"weight_shape": None}, r"there is no tensor .*down_proj.weight_shape"),
    "no integers": ({"weight_packed": None}, r"there is no tensor .*down_proj.weight_packed"),
    "a scale too few": (
        {"weight_scale": torch.ones(OUT, 3)},
        r"weight_scale is F32 \[24, 3\], and not .* \[24, 4\] as its configuration says",
    ),
    "scales of integers": ({"weight_scale": torch.ones(OUT, 4, dtype=torch.int32)}, r"weight_scale is I32"),
    "a row too few": (
        {"weight_packed": torch.zeros(OUT - 1, 16, dtype=torch.int32)},
        r"weight_packed is I32 \[23, 16\], and not I32 \[24, 16\]",
    ),
    "bytes": ({"weight_packed": torch.zeros(OUT, 64, dtype=torch.uint8)}, r"weight_packed is U8 \[24, 64\]"),
    "a shape of three": ({"weight_shape": torch.ones(3, dtype=torch.int64)}, r"weight_shape is I64 \[3\]"),
    "a negative shape": ({"weight_shape": torch.tensor([-1, IN])}, r"weight_shape is \[-1, 128\]"),
    "part of a group": ({"weight_shape": torch.tensor([OUT, 100])}, r"weight_packed is I32|no multiple"),
    "zero points": (
        {"weight_zero_point": torch.zeros(3, 4, dtype=torch.int32)},
        r"weight_zero_point does not belong to a matrix stored as int4, groups of 32",
    ),
    "another order": ({"weight_g_idx": torch.zeros(IN, dtype=torch.int32)}, r"weight_g_idx: columns in ano"),
    "twice": ({"weight": torch.ones(OUT, IN)}, r"down_proj.weight does not belong to a matrix stored as"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_wrong_tensors_are_one_clear_error(tmp_path: Path, damage: str) -> None:
    changes, message = DAMAGES[damage]
    stored, _ = reference(config(**GROUP), torch.bfloat16, seed=8)
    changed = {key: tensor for key, tensor in {**stored, **changes}.items() if tensor is not None}
    with pytest.raises(InvalidRequest) as refused:
        open_folder(write(tmp_path / "c", config(**GROUP), named(changed)))
    assert re.search(message, refused.value.message)
    assert NAME in refused.value.message


def test_missing_zero_points_are_named(tmp_path: Path) -> None:
    stored, _ = reference(config(symmetric=False, **GROUP), torch.bfloat16, seed=9)
    del stored["weight_zero_point"]
    with pytest.raises(InvalidRequest, match=r"there is no tensor .*weight_zero_point"):
        open_folder(write(tmp_path / "c", config(symmetric=False, **GROUP), named(stored)))


def test_an_ignored_matrix_must_not_be_quantised(tmp_path: Path) -> None:
    stored, _ = reference(config(**GROUP), torch.bfloat16, seed=10)
    section = {**config(**GROUP), "ignore": ["re:.*down_proj"]}
    with pytest.raises(InvalidRequest, match="is quantised, but quantization_config does not say how"):
        open_folder(write(tmp_path / "c", section, named(stored)))


def test_fp8_without_scales_is_refused(tmp_path: Path) -> None:
    section = config("float-quantized", num_bits=8, type="float", strategy="tensor")
    tensors = {f"{NAME}.weight": torch.ones(OUT, IN).to(torch.float8_e4m3fn)}
    with pytest.raises(InvalidRequest, match=r"there is no tensor .*weight_scale"):
        open_folder(write(tmp_path / "c", section, tensors))


def test_an_unsupported_configuration_is_refused_before_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config(num_bits=3)}))
    with pytest.raises(InvalidRequest, match="only 4 and 8 are"):
        open_folder(tmp_path)
