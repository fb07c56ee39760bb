import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gemma_launcher.checkpoints import validation
from gemma_launcher.errors import CommandError

Make = Callable[[dict[str, int]], bytes]


def error_message(folder: Path) -> str:
    with pytest.raises(CommandError) as caught:
        validation.validate_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_complete_checkpoint_passes(checkpoint_folder: Path) -> None:
    validation.validate_checkpoint(checkpoint_folder)


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "no such folder" in error_message(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(checkpoint_folder: Path, name: str) -> None:
    (checkpoint_folder / name).unlink()
    assert error_message(checkpoint_folder).endswith(f"{name} is missing")


def test_no_weights(checkpoint_folder: Path) -> None:
    (checkpoint_folder / "model.safetensors").unlink()
    assert "there are no weights" in error_message(checkpoint_folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "config.json is not valid JSON"),
        ("\xff", "config.json is not valid JSON"),
        ("[]", "config.json is not a JSON object"),
        ("{}", 'model_type "None", but only gemma3, gemma3_text, gemma3n, gemma3n_text are supported'),
        (
            '{"model_type": "llama"}',
            'model_type "llama", but only gemma3, gemma3_text, gemma3n, gemma3n_text',
        ),
        (
            '{"model_type": "gemma3n", "quantization_config": {"quant_method": "awq"}}',
            "quantization_config.quant_method: 'awq' is not supported, only 'compressed-tensors' is",
        ),
    ],
)
def test_an_unsupported_config(checkpoint_folder: Path, text: str, words: str) -> None:
    (checkpoint_folder / "config.json").write_text(text, encoding="latin-1")
    assert words in error_message(checkpoint_folder)


def test_the_launcher_and_the_model_know_the_same_architectures() -> None:
    from gemma_model.families import FAMILIES  # noqa: PLC0415

    assert list(validation.MODEL_TYPES) == list(FAMILIES)


def test_truncated_weights(checkpoint_folder: Path) -> None:
    path = checkpoint_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert "model.safetensors is incomplete or damaged" in error_message(checkpoint_folder)


def test_weights_longer_than_their_header_says(checkpoint_folder: Path) -> None:
    path = checkpoint_folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"?")
    assert "damaged" in error_message(checkpoint_folder)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "incomplete or damaged"),
        (b"\xff" * 50, "incomplete or damaged"),
        (b"\x30" + bytes(7) + b"{", "incomplete or damaged"),
        (b"\x02" + bytes(7) + b"[]", "incomplete or damaged"),
        (b"\x08" + bytes(7) + b'{"a": 1}', "incomplete or damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
    ],
)
def test_invalid_weights(checkpoint_folder: Path, data: bytes, words: str) -> None:
    (checkpoint_folder / "model.safetensors").write_bytes(data)
    assert words in error_message(checkpoint_folder)


@pytest.fixture
def sharded(checkpoint_folder: Path, make_safetensors: Make) -> Path:
    (checkpoint_folder / "model.safetensors").unlink()
    (checkpoint_folder / "one.safetensors").write_bytes(make_safetensors({"a": 1, "b": 2}))
    (checkpoint_folder / "two.safetensors").write_bytes(make_safetensors({"c": 3}))
    index = {"weight_map": {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}}
    (checkpoint_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return checkpoint_folder


def test_shards_pass(sharded: Path) -> None:
    validation.validate_checkpoint(sharded)


def test_a_missing_shard(sharded: Path) -> None:
    (sharded / "two.safetensors").unlink()
    assert "two.safetensors is missing" in error_message(sharded)


def test_a_truncated_shard(sharded: Path) -> None:
    path = sharded / "two.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "two.safetensors is incomplete or damaged" in error_message(sharded)


def test_a_shard_that_lacks_a_tensor(sharded: Path, make_safetensors: Make) -> None:
    (sharded / "one.safetensors").write_bytes(make_safetensors({"a": 1}))
    assert "one.safetensors lacks 1 tensors of the index, such as b" in error_message(sharded)


def test_an_index_without_a_map(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text("{}")
    assert "has no weight_map" in error_message(sharded)


def test_a_file_that_cannot_be_read_is_one_sentence(checkpoint_folder: Path) -> None:
    (checkpoint_folder / "tokenizer.json").unlink()
    (checkpoint_folder / "tokenizer.json").symlink_to("tokenizer.json")
    assert "tokenizer.json" in error_message(checkpoint_folder)
