import hashlib
import json
from pathlib import Path

from safetensors import safe_open

from gemma_model.testing.tiny_checkpoint import make


def _digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_the_same_seed_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    make(tmp_path / "again")
    make(tmp_path / "other", seed=1)
    assert _digests(tmp_path / "again") == _digests(tiny)
    weights = "model.safetensors"
    assert _digests(tmp_path / "other")[weights] != _digests(tiny)[weights]
    assert {path.name for path in tmp_path.iterdir()} == {"again", "other"}


def test_it_has_the_layout_and_the_oddities_of_the_published_ones(tiny: Path) -> None:
    assert {file.name for file in tiny.iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    text = config["text_config"]
    assert config["architectures"] == ["Gemma3nForConditionalGeneration"]
    assert set(text["layer_types"]) == {"sliding_attention", "full_attention"}
    assert text["num_kv_shared_layers"] > 0
    assert max(text["activation_sparsity_pattern"]) > 0
    with safe_open(tiny / "model.safetensors", "pt") as weights:
        keys = set(weights.keys())
    for part in ("language_model", "vision_tower", "audio_tower", "embed_vision", "embed_audio"):
        assert any(key.startswith(f"model.{part}.") for key in keys)


def test_the_audio_processor_matches_its_tower(tiny: Path) -> None:
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    processor = json.loads((tiny / "processor_config.json").read_text(encoding="utf-8"))
    extractor, audio = processor["feature_extractor"], config["audio_config"]
    assert extractor["feature_extractor_type"] == "Gemma3nAudioFeatureExtractor"
    assert extractor["feature_size"] == audio["input_feat_size"] == 128
    assert processor["audio_seq_length"] == config["audio_soft_tokens_per_image"] == 188
    assert processor["image_seq_length"] == config["vision_soft_tokens_per_image"]
