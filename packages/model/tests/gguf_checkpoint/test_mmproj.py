"""The encoders of an ``mmproj`` file: their tensors, their configuration, and which files are used."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, Gemma3nConfig, Gemma3nVisionConfig

from gemma_model.checkpoint import open_checkpoint
from gemma_model.gguf_checkpoint import prepare_folder
from gemma_model.gguf_checkpoint.encoder_tensors import EncoderTensors
from gemma_model.gguf_checkpoint.mmproj_names import checkpoint_name
from gemma_model.gguf_checkpoint.vision_encoder import read_vision_encoder
from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.media.images import ImageDecoder
from gemma_model.models.loader import load_model
from gemma_model.models.model import LoadedModel
from gemma_model.prompt_encoder import PromptEncoder
from gemma_model.request_processor import RequestProcessor
from gemma_model.settings import Settings
from gemma_model.testing.tiny_tokenizer import MM_VOCAB, TEXT_VOCAB
from gemma_model.weights.open_weights import open_folder
from gemma_wire import InvalidRequest, Request
from gemma_wire.gguf import GGUF, TensorInfo, Value
from gemma_wire.gguf_sources import read_reference
from gemma_wire.gguf_types import BLOCK_TYPES
from gemma_wire.messages import Message

from ..encoding import encode_audio, encode_image
from ..media_files import MAX_PIXELS, png, wav

gguf = pytest.importorskip("gguf", reason="the package gguf, which writes GGUF files, is not installed")
write_gguf = pytest.importorskip("gemma_model.testing.gguf_writer").write_gguf
writer = pytest.importorskip("gemma_model.testing.mmproj_writer")
write_mmproj = writer.write_mmproj

NANO = Path(__file__).parents[4] / "models" / "gemma3n-nano"


@pytest.fixture(scope="module")
def files(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text model and its encoders."""
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(tiny, folder / "tiny-F32.gguf", "F32")
    write_mmproj(tiny, folder / "mmproj-F32.gguf", "F32")
    return folder


def loaded(folder: Path) -> LoadedModel:
    settings = Settings(max_num_seqs=1, max_model_len=512, compile="off", device="cpu", dtype="float32")
    return load_model(folder, settings, torch.device("cpu"))


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """The projections are fp16 in the file."""
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=5e-3)


def assert_same_encoders(ours: LoadedModel, theirs: LoadedModel) -> None:
    assert ours.encoders is not None
    assert theirs.encoders is not None
    pixels, log_mel = torch.rand(1, 3, 64, 64), torch.rand(1, 70, 128)
    with torch.inference_mode():
        assert_close(encode_image(ours.encoders, pixels), encode_image(theirs.encoders, pixels))
        assert_close(encode_audio(ours.encoders, log_mel), encode_audio(theirs.encoders, log_mel))


@pytest.mark.skipif(not NANO.is_dir(), reason="there is no models/gemma3n-nano")
@pytest.mark.parametrize("kind", ["F32", "BF16", "F16", "Q8_0"])
def test_each_tensor_is_that_of_the_checkpoint(kind: str, tmp_path: Path) -> None:
    write_gguf(NANO, tmp_path / "nano.gguf", "BF16")
    write_mmproj(NANO, tmp_path / "mmproj.gguf", kind)
    stored = open_folder(prepare_folder(tmp_path, tmp_path / "cache"))
    expected = writer.encoder_tensors(NANO)
    assert expected.keys() <= stored.keys()
    dtypes = set()
    for name, tensor in expected.items():
        found = stored[name].load()
        assert isinstance(found, torch.Tensor)
        assert found.shape == tensor.shape
        is_block = kind == "Q8_0" and tensor.dim() == 2 and found.dtype == torch.float32
        if is_block:
            torch.testing.assert_close(found, tensor.float(), rtol=0, atol=float(tensor.abs().max()) / 127)
        else:
            assert torch.equal(found, tensor.to(found.dtype)), name
        dtypes.add(found.dtype)
    chosen = {"F32": torch.float32, "BF16": torch.bfloat16}.get(kind, torch.float16)
    assert dtypes == {torch.float32, torch.float16, chosen}


def test_names_of_all_tensors_of_the_published_encoders() -> None:
    for name in writer.encoder_tensors(NANO) if NANO.is_dir() else ():
        assert checkpoint_name(writer.mmproj_name(name)) == name
    assert checkpoint_name("a.blk.0.unknown.weight") is None
    assert checkpoint_name("v.patch_embd.weight") is None


def test_the_file_beside_the_model_is_used(files: Path, tiny: Path, tmp_path: Path) -> None:
    folder = prepare_folder(files, tmp_path / "cache")
    assert read_reference(folder) == ([files / "tiny-F32.gguf"], files / "mmproj-F32.gguf")
    ours, theirs = open_checkpoint(folder), open_checkpoint(tiny)
    assert ours.soft_tokens == theirs.soft_tokens
    for key in ("eoi_token_id", "image_token_id", "eoa_token_id", "audio_token_id"):
        assert ours.config[key] == theirs.config[key]
    RequestProcessor(ours, Settings()).close()
    model, expected = loaded(folder), loaded(tiny)
    assert_same_encoders(model, expected)
    ids = [5, 6, *range(TEXT_VOCAB, TEXT_VOCAB + 2 * MM_VOCAB)]
    with torch.inference_mode():
        assert_close(model.model.embed(ids), expected.model.embed(ids))


def test_images_are_prepared_as_the_file_says(files: Path, tiny: Path, tmp_path: Path) -> None:
    write_gguf(tiny, tmp_path / "model.gguf")
    normalized, plain = tmp_path / "normalized", prepare_folder(files, tmp_path / "cache")
    shutil.copytree(tiny, normalized)
    processor = json.loads((tiny / "processor_config.json").read_text())
    processor["image_processor"] |= {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (normalized / "processor_config.json").write_text(json.dumps(processor))
    write_mmproj(normalized, tmp_path / "mmproj.gguf", "F32")
    changed = prepare_folder(tmp_path / "model.gguf", tmp_path / "cache")
    pixels = [
        ImageDecoder(each, MAX_PIXELS).decode(png(), "images[0]").features
        for each in (plain, tiny, changed, normalized)
    ]
    assert (pixels[0] == pixels[1]).all()
    assert (pixels[2] == pixels[3]).all()
    assert (pixels[0] != pixels[2]).any()


def test_a_processor_beside_the_file_is_used_if_it_fits(files: Path, tiny: Path, tmp_path: Path) -> None:
    for file in files.iterdir():
        shutil.copy(file, tmp_path)
    made = prepare_folder(tmp_path, tmp_path / "cache")
    processor = json.loads((tiny / "processor_config.json").read_text()) | {"audio_seq_length": 30}
    (tmp_path / "processor_config.json").write_text(json.dumps(processor))
    found = prepare_folder(tmp_path, tmp_path / "cache")
    assert open_checkpoint(found).soft_tokens == {"image": 16, "audio": 30}
    assert json.loads((found / "processor_config.json").read_text()) == processor
    processor["image_processor"]["size"] = {"height": 32, "width": 32}
    for content in (json.dumps(processor), "[]", "{"):
        (tmp_path / "processor_config.json").write_text(content)
        other = prepare_folder(tmp_path, tmp_path / "cache")
        assert open_checkpoint(other).soft_tokens == {"image": 16, "audio": 188}
        assert not (other / "processor_config.json").exists()
        assert (other / "preprocessor_config.json").read_bytes() == (
            made / "preprocessor_config.json"
        ).read_bytes()


@pytest.mark.parametrize(("kept", "missing"), [("vision", "audio"), ("audio", "images")])
def test_one_encoder_alone(files: Path, tiny: Path, tmp_path: Path, kept: str, missing: str) -> None:
    write_mmproj(tiny, tmp_path / "mmproj-one.gguf", "F32", modalities=[kept])
    folder = prepare_folder(files / "tiny-F32.gguf", tmp_path / "cache", tmp_path / "mmproj-one.gguf")
    checkpoint, model, expected = open_checkpoint(folder), loaded(folder), loaded(tiny)
    assert list(checkpoint.soft_tokens) == [{"vision": "image", "audio": "audio"}[kept]]
    assert model.encoders is not None
    assert expected.encoders is not None
    first = TEXT_VOCAB + (MM_VOCAB if kept == "audio" else 0)
    own = list(range(first, first + MM_VOCAB))
    with torch.inference_mode():
        if kept == "vision":
            pixels = torch.rand(1, 3, 64, 64)
            found, wanted = (encode_image(each.encoders, pixels) for each in (model, expected))  # type: ignore[arg-type]
        else:
            log_mel = torch.rand(1, 70, 128)
            found, wanted = (encode_audio(each.encoders, log_mel) for each in (model, expected))  # type: ignore[arg-type]
        assert_close(found, wanted)
        assert_close(model.model.embed(own), expected.model.embed(own))
        assert torch.equal(model.model.embed([5]), expected.model.embed([5]))
    processor = RequestProcessor(checkpoint, Settings())
    media: dict[str, Any] = {"images": (png(),)} if missing == "images" else {"audio": (wav(),)}
    part = {"type": "image" if missing == "images" else "audio"}
    request = Request(messages=(Message.model_validate({"role": "user", "content": [part]}),), **media)
    with pytest.raises(InvalidRequest, match=f"this model does not support {missing}") as raised:
        processor.process(request)
    assert raised.value.field == missing
    processor.close()


def logits(model: LoadedModel, ids: list[int]) -> torch.Tensor:
    cache = KVCache(model.model.cache_spec, 1, 64)
    with torch.inference_mode():
        x = model.model.embed(ids)
        found = model.model.prefill(ids, x, [Batch([0], [0], len(ids))], cache, keep=len(ids))
    assert found is not None
    return found


@pytest.mark.parametrize("source", ["mmproj", "checkpoint"])
def test_a_text_model_without_the_rows_of_the_encoders(
    files: Path, tiny: Path, tmp_path: Path, source: str
) -> None:
    """Such tokens are in prompts, and never in an output."""
    write_gguf(tiny, tmp_path / "cut.gguf", vocabulary=TEXT_VOCAB)
    encoders = files / "mmproj-F32.gguf" if source == "mmproj" else tiny
    folder = prepare_folder(tmp_path / "cut.gguf", tmp_path / "cache", encoders)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.vocabulary == TEXT_VOCAB + 2 * MM_VOCAB
    ours, theirs = (PromptEncoder(each, open_checkpoint(each).soft_tokens, 4096) for each in (folder, tiny))
    assert ours.soft_ids == theirs.soft_ids
    for token in ("<end_of_image>", "<end_of_audio>"):
        assert ours.tokenizer.token_to_id(token) == theirs.tokenizer.token_to_id(token)
    assert ours.tokenizer.encode("a <b> story").ids == theirs.tokenizer.encode("a <b> story").ids
    model, expected = loaded(folder), loaded(tiny)
    assert_same_encoders(model, expected)
    ids = [2, 7, *range(TEXT_VOCAB, TEXT_VOCAB + 2 * MM_VOCAB), 9]
    found, wanted = logits(model, ids), logits(expected, ids)
    exact = len(ids) if source == "checkpoint" else 2  # tokens before those of the encoders
    assert torch.equal(found[:exact, :TEXT_VOCAB], wanted[:exact, :TEXT_VOCAB])
    assert (found[:, TEXT_VOCAB:] == -torch.inf).all()


def test_text_alone(files: Path, tmp_path: Path) -> None:
    folder = prepare_folder(files, tmp_path / "cache", files / "mmproj-F32.gguf", text_only=True)
    assert read_reference(folder)[1] is None
    assert not open_checkpoint(folder).soft_tokens


def test_a_folder_with_an_mmproj_file_as_encoders(files: Path, tiny: Path, tmp_path: Path) -> None:
    write_gguf(tiny, tmp_path / "model.gguf")
    folder = prepare_folder(tmp_path / "model.gguf", tmp_path / "cache", files)
    assert read_reference(folder)[1] == files / "mmproj-F32.gguf"


def test_the_folder_is_made_again_when_the_encoders_change(tiny: Path, tmp_path: Path) -> None:
    write_gguf(tiny, tmp_path / "model.gguf")
    folders = {prepare_folder(tmp_path, tmp_path / "cache")}
    for kind in ("F32", "F16"):
        write_mmproj(tiny, tmp_path / "mmproj.gguf", kind)
        folders.add(prepare_folder(tmp_path, tmp_path / "cache"))
    assert len(folders) == 3


def test_the_published_image_encoder_is_known_from_its_tensors(tmp_path: Path) -> None:
    """The network that its shapes give is, layer by layer, that of the published configuration."""
    with torch.device("meta"):
        published = AutoModel.from_config(Gemma3nVisionConfig()).timm_model
    shapes = {f"v.{name}": tuple(value.shape) for name, value in published.state_dict().items()}
    shapes = {name.replace("v.blocks.", "v.blk."): shape for name, shape in shapes.items()}
    embedder = {"embedding": (128, 2048), "input_projection": (2048, 2048)}
    shapes |= {f"mm.{name}.weight": shape for name, shape in embedder.items()}
    shapes |= {f"mm.{name}_emb_norm.weight": (2048,) for name in ("hard", "soft")}
    file = tmp_path / "mmproj.gguf"
    infos = {name: TensorInfo(name, shape, BLOCK_TYPES[1], file, 0) for name, shape in shapes.items()}
    metadata: dict[str, Value] = {"clip.vision.image_size": 768, "clip.vision.patch_size": 3}
    metadata["general.architecture"] = "clip"
    model = GGUF((file,), metadata, infos)
    tensors = EncoderTensors(model)
    encoder = read_vision_encoder(model, tensors, 262_144, 2048)
    tensors.check(encoder.shapes)
    with torch.device("meta"):
        config = Gemma3nConfig.from_dict({"vision_config": dict(encoder.config)})  # as the towers do
        found = AutoModel.from_config(config.vision_config).timm_model
    assert repr(found) == repr(published)
    assert found.msfa_indices == published.msfa_indices
    assert found.msfa.output_resolution == published.msfa.output_resolution
    assert encoder.soft_tokens == 256
