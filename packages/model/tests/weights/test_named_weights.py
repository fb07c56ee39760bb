import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gemma_model.cpu import kernels
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.weights import Weights, open_weights
from gemma_model.weights.stored_tensor import StoredTensor
from gemma_wire import InvalidRequest
from gemma_wire.tensor_names import TOWER_PARTS, bare_name

from ..memory_maps import is_mapped


def write(folder: Path, tensors: dict[str, Tensor], shards: int = 1) -> Path:
    folder.mkdir()
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    files = [f"model-{n}-of-{shards}.safetensors" for n in range(shards)]
    weight_map = {key: files[i % shards] for i, key in enumerate(tensors)}
    for file in files:
        save_file({key: tensors[key] for key in tensors if weight_map[key] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.fixture
def tensors(model: Any) -> dict[str, Tensor]:
    return load_file(model.folder / "model.safetensors")


def load(model: Any, folder: Path) -> Weights:
    """Everything but the towers, which ``model`` has shown to load."""
    weights = open_weights(folder)
    Gemma3nDecoder(model.config, weights)
    for part in TOWER_PARTS:
        weights.skip_prefix(part + ".", "not under test")
    weights.check_all_used()
    return weights


def test_every_key_is_used(model: Any) -> None:
    model.weights.check_all_used()
    assert model.weights.unused == {}


@pytest.mark.parametrize("shards", [1, 3])
def test_one_file_or_shards(model: Any, tensors: dict[str, Tensor], tmp_path: Path, shards: int) -> None:
    weights = load(model, write(tmp_path / "c", tensors, shards))
    assert set(weights.unused.values()) == {"not under test"}


@pytest.mark.parametrize(
    "prefix", ["model.", "model.language_model.", "language_model.model.", "language_model.", ""]
)
def test_every_layout_of_the_text_part(
    model: Any, tensors: dict[str, Tensor], tmp_path: Path, prefix: str
) -> None:
    own = "model.language_model."
    text = {prefix + key.removeprefix(own): tensor for key, tensor in tensors.items() if key.startswith(own)}
    assert load(model, write(tmp_path / "c", text)).unused == {}


def test_unused_tensors_of_published_files_are_listed_with_a_reason(
    model: Any, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    last, first = model.config.num_hidden_layers - 1, "model.language_model.layers.0.self_attn."
    extra = {
        key.replace("layers.0.", f"layers.{last}."): tensor
        for key, tensor in tensors.items()
        if key.startswith(first)
    }
    extra = {key: tensor.clone() for key, tensor in extra.items() if key not in tensors}
    extra["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"].clone()
    unused = load(model, write(tmp_path / "c", tensors | extra)).unused
    reasons = {key: reason for key, reason in unused.items() if reason != "not under test"}
    assert reasons.keys() == extra.keys()
    assert all("tied" in reason or "reads the keys" in reason for reason in reasons.values())


def test_an_unknown_key_is_refused(model: Any, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    folder = write(tmp_path / "c", {**tensors, "model.language_model.layers.0.novelty": torch.ones(1)})
    with pytest.raises(InvalidRequest, match="novelty"):
        load(model, folder)


def test_a_missing_tensor_is_named(model: Any, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    del tensors["model.language_model.norm.weight"]
    with pytest.raises(InvalidRequest, match=r"'norm\.weight'"):
        load(model, write(tmp_path / "c", tensors))


def test_a_tensor_is_handed_out_once(model: Any) -> None:
    weights = open_weights(model.folder)
    weights.take("norm.weight")
    with pytest.raises(InvalidRequest, match="twice"):
        weights.take("norm.weight")


def test_the_same_tensor_in_two_layouts_is_refused(model: Any) -> None:
    tensor = StoredTensor.dense(lambda: torch.ones(1))
    stored = dict.fromkeys(("model.norm.weight", "norm.weight"), tensor)
    with pytest.raises(InvalidRequest, match="two"):
        Weights(stored)


def test_values_are_those_of_the_file(tensors: dict[str, Tensor], model: Any) -> None:
    weights = open_weights(model.folder)
    for key, tensor in tensors.items():
        torch.testing.assert_close(weights.take(bare_name(key)), tensor, rtol=0, atol=0)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "name",
    ["norm.weight", "layers.1.mlp.up_proj.weight", "embed_tokens.weight", "layers.0.self_attn.q_norm.weight"],
)
def test_a_tensor_that_is_not_finite_is_named(
    model: Any, tensors: dict[str, Tensor], tmp_path: Path, name: str, value: float, compiled: bool
) -> None:
    if compiled and not kernels.load():
        pytest.skip("no compiler or no processor for the kernels here; the log says which")
    tensors[f"model.language_model.{name}"].view(-1)[-1] = value
    weights = open_weights(write(tmp_path / "c", tensors), dtype=torch.bfloat16, cpu_kernels=compiled)
    with pytest.raises(InvalidRequest, match=f"'{name}' has infinity or NaN"):
        Gemma3nDecoder(model.config, weights)


def test_a_number_beyond_the_computation_s_dtype_is_not_finite(
    model: Any, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    tensors["model.language_model.norm.weight"][0] = torch.finfo(torch.float32).max
    with pytest.raises(InvalidRequest, match=r"'norm\.weight' has infinity or NaN"):
        open_weights(write(tmp_path / "c", tensors), dtype=torch.bfloat16).take("norm.weight")


def test_the_per_layer_table_stays_in_the_file(model: Any) -> None:
    (table,) = model.decoder.embed_tokens_per_layer.table.parts
    assert is_mapped(table, model.folder / "model.safetensors")
    assert not is_mapped(model.decoder.embed_tokens.weight.operand, model.folder / "model.safetensors")


@pytest.mark.parametrize("damage", ["missing", "cut", "garbage", "index"])
def test_a_damaged_file_is_one_clear_error(tensors: dict[str, Tensor], tmp_path: Path, damage: str) -> None:
    folder = write(tmp_path / "c", tensors, shards=2)
    file = next(folder.glob("*.safetensors"))
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1000])
    elif damage == "garbage":
        file.write_bytes(b"\xff" * 100)
    else:
        save_file({"other": torch.ones(1)}, file)
    with pytest.raises(InvalidRequest, match=file.name):
        open_weights(folder)


def test_towers_stay_in_the_file_unless_their_dtype_changes(tmp_path: Path) -> None:
    tensors = {"vision_tower.a": torch.ones(64, 64).bfloat16(), "vision_tower.b": torch.ones(8)}
    folder = write(tmp_path / "c", tensors)
    weights = open_weights(folder, dtype=torch.bfloat16)
    taken = weights.take_prefix("vision_tower.")
    assert is_mapped(taken["a"], folder / "model.safetensors")
    assert not is_mapped(taken["b"], folder / "model.safetensors")
    assert {tensor.dtype for tensor in taken.values()} == {torch.bfloat16}
    assert weights.taken_bytes == taken["b"].nbytes


def test_a_tower_with_infinity_is_refused(tmp_path: Path) -> None:
    weights = open_weights(write(tmp_path / "c", {"vision_tower.a": torch.tensor([1.0, torch.inf])}))
    with pytest.raises(InvalidRequest, match="infinity or NaN"):
        weights.take_prefix("vision_tower.")
