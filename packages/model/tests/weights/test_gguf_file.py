"""The text decoder from GGUF files."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gemma_model.gguf_checkpoint import prepare_folder
from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.weights import Weights, open_weights
from gemma_model.weights.gguf_file import open_gguf
from gemma_model.weights.gguf_names import STACKED, checkpoint_name
from gemma_model.weights.mapped_matrix import MappedMatrix
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.stored_tensor import StoredTensor
from gemma_wire.gguf import read_gguf

from ..memory_maps import is_mapped

gguf = pytest.importorskip("gguf", reason="the package gguf, which writes GGUF files, is not installed")
write_gguf = pytest.importorskip("gemma_model.testing.gguf_writer").write_gguf

KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")


@pytest.fixture(scope="module", params=KINDS)
def file(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint as a GGUF file."""
    made: Path = write_gguf(
        tiny, tmp_path_factory.mktemp("gguf") / f"tiny-{request.param}.gguf", request.param
    )
    return made


@pytest.fixture
def folder(file: Path, tmp_path: Path) -> Path:
    """What represents it."""
    return prepare_folder(file, tmp_path)


def reference(file: Path) -> dict[str, StoredTensor]:
    """The same tensors, dequantised by the package gguf."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}

    def dequantized(name: str) -> Tensor:
        tensor = tensors[name]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        return torch.from_numpy(values.astype("float32")).reshape(*reversed(tensor.shape.tolist()))

    dense: dict[str, Tensor] = {}
    for name in tensors:
        if name in STACKED:
            dense |= {STACKED[name].format(i): matrix for i, matrix in enumerate(dequantized(name))}
        else:
            dense[checkpoint_name("gemma3n", name) or ""] = dequantized(name)
    return {name: StoredTensor.dense(partial(dense.__getitem__, name)) for name in dense}


def values_of(stored: StoredTensor) -> Tensor:
    loaded = stored.load()
    return loaded.dequantize() if isinstance(loaded, QuantizedTensor) else loaded.float()


def logits(config: Gemma3nDecoderConfig, weights: Weights) -> Tensor:
    decoder = Gemma3nDecoder(config, weights)
    weights.check_all_used()
    cache = KVCache(config.cache_spec, 1, 128, 0)
    ids = list(range(5, 45))
    with torch.inference_mode():
        result = decoder.prefill(ids, decoder.embed(ids), [Batch([0], [0], len(ids))], cache, len(ids))
    assert result is not None
    return result


def text_config(folder: Path) -> Gemma3nDecoderConfig:
    return Gemma3nDecoderConfig.read(json.loads((folder / "config.json").read_text()))


def test_the_configuration_is_that_of_the_checkpoint(folder: Path, tiny: Path) -> None:
    assert text_config(folder) == text_config(tiny)


def test_logits_equal_those_of_the_dequantised_weights(file: Path, folder: Path) -> None:
    config = text_config(folder)
    ours = logits(config, open_weights(folder, "cpu", torch.float32))
    expected = logits(config, Weights(reference(file), "cpu", torch.float32))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_values_equal_those_of_the_gguf_package(file: Path) -> None:
    ours, expected = open_gguf(read_gguf(file)), reference(file)
    assert ours.keys() == expected.keys()
    for name, tensor in ours.items():
        assert torch.equal(values_of(tensor), values_of(expected[name])), name


def test_rows_of_the_per_layer_table_are_read_from_the_file(file: Path) -> None:
    stored = open_gguf(read_gguf(file))["embed_tokens_per_layer.weight"]
    table, values = MappedMatrix(stored), values_of(stored)
    ids = torch.tensor([7, 0, 511, 7])
    assert is_mapped(table.parts[0], file)
    assert torch.equal(table.rows(ids).float(), values[ids])
