"""The family of a checkpoint, from its files to the model and to the names that are served."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gemma_model.checkpoint import open_checkpoint
from gemma_model.models.gemma3.decoder import Gemma3Decoder
from gemma_model.models.gemma3n.decoder import Gemma3nDecoder
from gemma_model.models.loader import load_model
from gemma_model.request_processor import RequestProcessor
from gemma_model.settings import Settings
from gemma_wire import InvalidRequest

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("shape", "family"),
    [("quick", Gemma3nDecoder), ("gemma 3", Gemma3Decoder), ("gemma 3 with vision", Gemma3Decoder)],
)
def test_model_type_chooses_the_family(
    folder_of: Callable[[str], Path], shape: str, family: type[Gemma3Decoder | Gemma3nDecoder]
) -> None:
    loaded = load_model(folder_of(shape), Settings(), CPU)
    assert type(loaded.model) is family
    assert (loaded.encoders is None) == (family is Gemma3Decoder)


@pytest.mark.parametrize("shape", ["gemma 3", "gemma 3 with vision"])
def test_gemma_3_is_served_as_text_alone(folder_of: Callable[[str], Path], shape: str) -> None:
    checkpoint = open_checkpoint(folder_of(shape))
    processor = RequestProcessor(checkpoint, Settings())
    processor.close()
    assert (checkpoint.soft_tokens, processor.variants) == ({}, ())
    with pytest.raises(InvalidRequest, match="Gemma 3 has no nested models"):
        RequestProcessor(checkpoint, Settings(variants="E2B"))


def test_an_unknown_architecture_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InvalidRequest, match="'llama' is not supported, only gemma3, gemma3_text, gemma3n"):
        load_model(tmp_path, Settings(), CPU)


@pytest.mark.parametrize("missing", ["model.layers.3.mlp.up_proj.weight", "model.norm.weight"])
def test_a_missing_tensor_is_named(folder_of: Callable[[str], Path], tmp_path: Path, missing: str) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    folder = folder_of("gemma 3")
    tensors = load_file(folder / "model.safetensors")
    del tensors[missing]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InvalidRequest, match=missing.removeprefix("model.")):
        load_model(tmp_path, Settings(), CPU)
