"""What stands for a picture or a sound is what transformers makes of it, one medium or several at a time."""

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gemma_model.models.gemma3n.towers import Towers
from gemma_model.testing.tiny_checkpoint import AUDIO_TOKENS, IMAGE_SIDE, IMAGE_TOKENS
from gemma_model.testing.tiny_tokenizer import MM_VOCAB, TEXT_VOCAB
from gemma_model.weights import open_weights
from gemma_wire.tensor_names import TOWER_PARTS

from ...encoding import encode_audio, encode_image

SOUND = TEXT_VOCAB + MM_VOCAB + 1
LENGTHS = [1, 2, 16, 17, 97, 500, 2997]  # frames; the last one is 30 seconds


@pytest.fixture(scope="module")
def twin(model: Any) -> Towers:
    """Our towers over transformers' very tensors: where else weights lie, BLAS may round otherwise."""
    towers: Towers = copy.copy(model.towers)
    towers._parts = {part: getattr(model.oracle.model, part) for part in TOWER_PARTS}
    return towers


def _sounds(count: int, frames: int) -> Tensor:
    return torch.randn(count, frames, 128, generator=torch.Generator().manual_seed(frames))


def _heard_by_transformers(model: Any, log_mel: Tensor) -> Tensor:
    """What its forward puts into the places of sounds, filled up as it fills them up."""
    count, frames, _ = log_mel.shape
    ids = torch.full((1, count * AUDIO_TOKENS), SOUND)
    everything_counts = torch.ones(count, frames, dtype=torch.bool)
    said = model.oracle.model(input_ids=ids, input_features=log_mel, input_features_mask=everything_counts)
    heard: Tensor = said.audio_hidden_states
    return heard


@pytest.mark.parametrize("frames", LENGTHS)
def test_audio_of_any_length_is_encoded_bit_for_bit(model: Any, twin: Towers, frames: int) -> None:
    log_mel = _sounds(1, frames)
    expected = _heard_by_transformers(model, log_mel)
    assert expected.shape == (1, AUDIO_TOKENS, model.config.hidden_size)
    assert torch.equal(encode_audio(twin, log_mel), expected)
    assert_close(encode_audio(model.towers, log_mel), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [17, 97])
def test_audio_of_equal_length_is_encoded_together(model: Any, twin: Towers, frames: int) -> None:
    log_mel = _sounds(3, frames)
    heard = encode_audio(twin, log_mel)
    assert torch.equal(heard, _heard_by_transformers(model, log_mel))
    assert_close(
        heard, torch.cat([encode_audio(twin, one.unsqueeze(0)) for one in log_mel]), atol=1e-5, rtol=0
    )


def test_unused_soft_tokens_are_the_embedding_of_the_last_id(model: Any) -> None:
    heard = encode_audio(model.towers, _sounds(1, 33))[0]
    first, hard = model.towers.hard_embeddings()
    assert first + len(hard) == TEXT_VOCAB + 2 * MM_VOCAB
    assert_close(heard[3:], hard[-1].expand(AUDIO_TOKENS - 3, -1))  # 16 frames become a token
    assert not torch.allclose(heard[2], hard[-1])


def test_audio_that_is_too_long_is_refused_with_both_numbers(model: Any) -> None:
    with pytest.raises(ValueError, match="189 soft tokens; the limit is 188"):
        encode_audio(model.towers, _sounds(1, 188 * 16 + 1))


@pytest.mark.parametrize("count", [1, 3])
def test_images_are_encoded_bit_for_bit(model: Any, twin: Towers, count: int) -> None:
    pixels = torch.rand(count, 3, IMAGE_SIDE, IMAGE_SIDE, generator=torch.Generator().manual_seed(count))
    expected = model.oracle.model.get_image_features(pixels).pooler_output
    assert expected.shape == (count, IMAGE_TOKENS, model.config.hidden_size)
    assert torch.equal(encode_image(twin, pixels), expected)
    seen = encode_image(model.towers, pixels)
    assert_close(seen, expected, atol=1e-5, rtol=0)
    assert_close(
        seen, torch.cat([encode_image(model.towers, one.unsqueeze(0)) for one in pixels]), atol=1e-5, rtol=0
    )


def test_without_fast_bf16_blocks_are_computed_in_fp32(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemma_model.models.gemma3n.towers.has_fast_bf16", lambda: False)
    config, weights = (
        json.loads((model.folder / "config.json").read_text()),
        open_weights(model.folder, dtype=torch.bfloat16),
    )
    ours, exact = Towers(config, weights, torch.device("cpu"), torch.bfloat16), copy.copy(model.towers)
    exact._parts = {
        part: copy.deepcopy(module).bfloat16().float() for part, module in model.towers._parts.items()
    }
    pixels = torch.rand(1, 3, IMAGE_SIDE, IMAGE_SIDE, generator=torch.Generator().manual_seed(1))
    for encode, media in ((encode_image, pixels), (encode_audio, _sounds(1, 97))):
        soft_tokens = encode(ours, media)
        assert soft_tokens.dtype == torch.bfloat16
        assert_close(soft_tokens, encode(exact, media).bfloat16())
    assert all(each.dtype == torch.bfloat16 for part in ours._parts.values() for each in part.parameters())
