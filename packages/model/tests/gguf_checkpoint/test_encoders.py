"""A GGUF file with the encoders of a checkpoint."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gemma_model.checkpoint import find_folder, open_checkpoint
from gemma_model.gguf_checkpoint import prepare_folder
from gemma_model.models.loader import load_model
from gemma_model.request_processor import RequestProcessor
from gemma_model.settings import Settings
from gemma_wire import InvalidRequest

from ..encoding import encode_audio, encode_image

pytest.importorskip("gguf", reason="the package gguf, which writes GGUF files, is not installed")
write_gguf = pytest.importorskip("gemma_model.testing.gguf_writer").write_gguf


@pytest.fixture(scope="module")
def file(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = write_gguf(tiny, tmp_path_factory.mktemp("gguf") / "tiny-F32.gguf", "F32")
    return made


@pytest.fixture
def changed(tiny: Path, tmp_path: Path) -> Any:
    """The tiny checkpoint with another config.json."""

    def change(**sections: Any) -> Path:
        folder = tmp_path / "encoders"
        shutil.copytree(tiny, folder)
        config = json.loads((folder / "config.json").read_text())
        config = {key: value for key, value in {**config, **sections}.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return change


def settings() -> Settings:
    return Settings(max_num_seqs=1, max_model_len=512, compile="off", device="cpu")


def test_images_and_audio_are_those_of_the_checkpoint(file: Path, tiny: Path, tmp_path: Path) -> None:
    folder = prepare_folder(file, tmp_path / "cache", encoders=tiny)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.soft_tokens == open_checkpoint(tiny).soft_tokens
    RequestProcessor(checkpoint, settings())  # it has the files for images and audio
    ours, theirs = (load_model(each, settings(), torch.device("cpu")) for each in (folder, tiny))
    assert ours.encoders is not None
    assert theirs.encoders is not None
    pixels, log_mel = torch.rand(1, 3, 64, 64), torch.rand(1, 70, 128)
    ids = [5, 6, checkpoint.config["image_token_id"], checkpoint.config["audio_token_id"]]
    with torch.inference_mode():
        assert torch.equal(encode_image(ours.encoders, pixels), encode_image(theirs.encoders, pixels))
        assert torch.equal(encode_audio(ours.encoders, log_mel), encode_audio(theirs.encoders, log_mel))
        torch.testing.assert_close(ours.model.embed(ids), theirs.model.embed(ids))


def test_without_encoders_there_is_text_alone(file: Path, tiny: Path, tmp_path: Path) -> None:
    folder = prepare_folder(file, tmp_path / "cache")
    assert not open_checkpoint(folder).soft_tokens
    assert prepare_folder(file, tmp_path / "cache", encoders=tiny) != folder


def test_they_are_only_for_gguf_files(tiny: Path) -> None:
    for name in (str(tiny), "google/gemma-3n-E4B-it"):
        with pytest.raises(InvalidRequest, match="is only for GGUF files"):
            find_folder(name, None, tiny)


def test_a_prepared_folder_has_them_already(file: Path, tiny: Path, tmp_path: Path) -> None:
    """The launcher prepares the folder, and the model gets the same environment."""
    folder = prepare_folder(file, tmp_path / "cache", encoders=tiny)
    assert find_folder("", folder, tiny) == folder
    assert find_folder(str(folder), None, tiny) == folder


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"vision_config": None}, "has no encoders"),
        ({"text_config": None}, "has no encoders"),
        (
            {"text_config": {"hidden_size": 128, "vocab_size": 544}},
            "hidden_size is 128 in .*, and 64 in the GGUF",
        ),
        ({"text_config": {"hidden_size": 64, "vocab_size": 7}}, "vocab_size is 7 in"),
    ],
)
def test_encoders_that_do_not_fit(
    file: Path, tmp_path: Path, changed: Any, sections: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InvalidRequest, match=expected) as raised:
        prepare_folder(file, tmp_path / "cache", encoders=changed(**sections))
    assert raised.value.field == "encoders"


def test_a_tokenizer_with_other_tokens(file: Path, tmp_path: Path, changed: Any) -> None:
    folder = changed()
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"a": 0}}}')
    with pytest.raises(InvalidRequest, match=r"no tokenizer\.json with the tokens of the GGUF file"):
        prepare_folder(file, tmp_path / "cache", encoders=folder)


def test_a_folder_that_does_not_exist(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot read .*nothing/config\.json"):
        prepare_folder(file, tmp_path / "cache", encoders=tmp_path / "nothing")
