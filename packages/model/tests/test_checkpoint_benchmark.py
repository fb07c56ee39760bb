"""The random checkpoints of benchmarks/checkpoint.py, with a small vocabulary and few layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import checkpoint
from timm.models._efficientnet_builder import decode_arch_def
from transformers import AutoTokenizer

from gemma_model.checkpoint import open_checkpoint
from gemma_model.engine.model_loader import LoadedRunner
from gemma_model.settings import Settings
from gemma_model.testing.tiny_checkpoint import VISION_STAGES

FEW_LAYERS: dict[str, Any] = {
    "num_hidden_layers": 5,
    "num_kv_shared_layers": 1,
    "layer_types": ["sliding_attention", "full_attention"] * 2 + ["full_attention"],
    "activation_sparsity_pattern": [0.95] + [0.0] * 4,
    "vocab_size": 1024 + 256,
    "vocab_size_per_layer_input": 1024,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in several shards."""
    size = dict(checkpoint.SIZES["small"])
    size["text"] = {**size["text"], **FEW_LAYERS}
    size["vision"] = {
        "model_args": {
            "block_args": decode_arch_def(VISION_STAGES),
            "stem_size": 8,
            "msfa_output_resolution": 4,
        }
    }
    made = tmp_path_factory.mktemp("random")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "TEXT_VOCAB", 1024)
        patch.setattr(checkpoint, "NOISE", 100_003)
        patch.setattr(checkpoint, "SHARD_BYTES", 8_000_000)
        checkpoint.write_checkpoint(made, size)
    return made


def test_all_its_tensors_are_known_and_it_answers(folder: Path) -> None:
    assert len(list(folder.glob("*.safetensors"))) > 2
    settings = Settings(device="cpu", max_num_seqs=1, max_model_len=64, variants="none")
    loaded = LoadedRunner(folder, settings)
    assert loaded.model.vocab_size == 1280
    with torch.inference_mode():
        embedded = loaded.model.embed([5, 6, 7])
    assert embedded.isfinite().all()


def test_its_tokenizer_has_the_ids_of_its_config(folder: Path) -> None:
    config, tokenizer = open_checkpoint(folder).config, AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 1280
    assert config["image_token_id"] == tokenizer.convert_tokens_to_ids("<image_soft_token>") == 1025
    assert config["audio_token_id"] == tokenizer.convert_tokens_to_ids("<audio_soft_token>") == 1024 + 129
    assert max(tokenizer("Tell me a story about a house by the sea.").input_ids) < 512


def test_a_folder_that_exists_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["checkpoint", "small", str(tmp_path)])
    with pytest.raises(SystemExit, match="exists already"):
        checkpoint.main()
