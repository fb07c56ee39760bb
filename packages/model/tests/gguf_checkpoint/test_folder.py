"""GGUF files as checkpoints: the folders that represent them, and the files that are refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gemma_model.checkpoint import find_folder, open_checkpoint
from gemma_model.gguf_checkpoint import folder as folders
from gemma_model.gguf_checkpoint import prepare_folder
from gemma_model.prompt_encoder import PromptEncoder
from gemma_model.settings import Settings
from gemma_wire import InvalidRequest
from gemma_wire.gguf_sources import read_reference

gguf = pytest.importorskip("gguf", reason="the package gguf, which writes GGUF files, is not installed")
write_gguf = pytest.importorskip("gemma_model.testing.gguf_writer").write_gguf
write_mmproj = pytest.importorskip("gemma_model.testing.mmproj_writer").write_mmproj


Edit = Callable[..., Path]


@pytest.fixture(scope="module")
def file(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = write_gguf(tiny, tmp_path_factory.mktemp("gguf") / "tiny-Q8_0.gguf", "Q8_0")
    return made


@pytest.fixture
def edited(file: Path, tmp_path: Path) -> Edit:
    """Makes a file with other metadata or tensors."""

    def edit(
        keys: dict[str, object] | None = None,
        without: tuple[str, ...] = (),
        renamed: dict[str, str] | None = None,
        extra: dict[str, int] | None = None,
        architecture: str = "gemma3n",
    ) -> Path:
        reader, path = gguf.GGUFReader(file), tmp_path / "edited.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        values = {name: field.contents() for name, field in reader.fields.items() if "." in name}
        values = {name: value for name, value in values.items() if not name.startswith(("GGUF.", "general."))}
        kinds = {name: reader.fields[name].types for name in values}
        for name, value in {**values, **(keys or {})}.items():
            if name in without:
                continue
            new = name in (keys or {})
            types = [gguf.GGUFValueType.get_type(value)] if new else kinds[name]
            writer.add_key_value(name, value, types[0], types[1] if len(types) > 1 else None)
        for tensor in reader.tensors:
            if tensor.name not in without:
                name = (renamed or {}).get(tensor.name, tensor.name)
                writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
        for name, size in (extra or {}).items():
            writer.add_tensor(name, np.zeros(size, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return edit


def refusal(path: Path) -> str:
    with pytest.raises(InvalidRequest) as raised:
        prepare_folder(path, path.parent / "cache")
    assert not (path.parent / "cache").exists()
    return raised.value.message


def test_the_folder_is_a_checkpoint(file: Path, tiny: Path, tmp_path: Path) -> None:
    folder = prepare_folder(file, tmp_path)
    ours, theirs = open_checkpoint(folder), open_checkpoint(tiny)
    assert ours.eos_token_ids == theirs.eos_token_ids
    assert ours.defaults == theirs.defaults
    assert (ours.vocabulary, ours.context_length) == (theirs.vocabulary, theirs.context_length)
    assert ours.soft_tokens == {}
    assert ours.tokenizer_config["chat_template"] == "{{ bos_token }}"
    assert read_reference(folder)[0] == [file]
    assert read_reference(tiny) == ([], None)


def test_the_tokenizer_gives_the_ids_of_the_checkpoint(file: Path, tiny: Path, tmp_path: Path) -> None:
    def encoder(folder: Path) -> PromptEncoder:
        return PromptEncoder(folder, {}, 4096)

    ours, theirs = encoder(prepare_folder(file, tmp_path)), encoder(tiny)
    for text in ("Hello, how are you?", "<start_of_turn>user\nTell me a story<end_of_turn>\n", "ü\t  €", ""):
        assert ours.tokenizer.encode(text).ids == theirs.tokenizer.encode(text).ids
    assert ours.tokenizer.decode([5, 300, 301, 400]) == theirs.tokenizer.decode([5, 300, 301, 400])


def test_the_folder_is_made_once_and_again_when_the_file_changes(
    file: Path, tiny: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(file, tmp_path / "model.gguf"))
    first = prepare_folder(path, tmp_path / "cache")
    written = (first / "config.json").stat().st_mtime_ns
    assert prepare_folder(path, tmp_path / "cache") == first
    assert (first / "config.json").stat().st_mtime_ns == written
    write_gguf(tiny, path, "Q4_0")
    assert prepare_folder(path, tmp_path / "cache") != first


def test_a_tokenizer_beside_the_file_is_preferred(file: Path, tiny: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(file, tmp_path / "model.gguf"))
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copy(tiny / name, tmp_path)
    folder = prepare_folder(path, tmp_path / "cache")
    for name in ("tokenizer.json", "generation_config.json"):
        assert (folder / name).read_bytes() == (tiny / name).read_bytes()


@pytest.mark.parametrize("content", ['{"model": {"vocab": {"a": 0, "b": 1}}}', "[]", "{", '{"model": {}}'])
def test_a_tokenizer_of_another_model_is_not_used(file: Path, tmp_path: Path, content: str) -> None:
    path = Path(shutil.copy(file, tmp_path / "model.gguf"))
    (tmp_path / "tokenizer.json").write_text(content)
    folder = prepare_folder(path, tmp_path / "cache")
    assert len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]) > 500


def test_a_cache_that_cannot_be_written(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no-folder").write_text("")
    monkeypatch.setattr(folders, "_temporary_cache", lambda: tmp_path / "temporary")
    folder = prepare_folder(file, tmp_path / "no-folder" / "cache")
    assert folder.parent == tmp_path / "temporary"
    monkeypatch.setattr(folders, "_temporary_cache", lambda: tmp_path / "no-folder" / "temporary")
    with pytest.raises(InvalidRequest, match="cannot write to"):
        prepare_folder(file, tmp_path / "no-folder" / "cache")


@pytest.mark.parametrize("kind", ["writable for others", "a link"])
def test_a_temporary_cache_that_others_may_have_filled_is_not_used(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    temporary, cache = tmp_path / "temporary", tmp_path / "no-folder"
    cache.write_text("")
    monkeypatch.setattr(folders, "_temporary_cache", lambda: temporary)
    folder = prepare_folder(file, cache / "gguf")
    assert folder.parent == temporary
    if kind == "a link":
        temporary.rename(tmp_path / "elsewhere")
        temporary.symlink_to(tmp_path / "elsewhere")
    else:
        temporary.chmod(0o777)
    with pytest.raises(InvalidRequest, match="or other users can as well"):
        prepare_folder(file, cache / "gguf")


def test_the_command_prints_the_folder_or_one_line(file: Path, tmp_path: Path) -> None:
    def run(path: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gemma_model.gguf_checkpoint", str(path)]
        environment = {"HOME": str(tmp_path)}
        return subprocess.run(command, env=environment, check=False, capture_output=True, encoding="utf-8")

    done = run(file)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_reference(Path(done.stdout.strip()))[0] == [file]
    refused = run(tmp_path / "missing.gguf")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"there is no file {tmp_path}/missing.gguf\n"


def test_a_file_or_its_folder_as_model_name(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = find_folder(str(file), None)
    assert read_reference(folder)[0] == [file]
    assert find_folder(str(file.parent), None) == find_folder("anything", file) == folder
    assert find_folder(str(folder), None) == folder
    assert Settings(model_name=str(file)).public_name == "tiny-Q8_0"
    assert Settings(model_name="owner/name:Q4_0").public_name == "owner/name"
    assert Settings(model_name="/x/m-00001-of-00002.gguf").public_name == "m"


def test_a_split_file(tiny: Path, tmp_path: Path) -> None:
    write_gguf(tiny, tmp_path / "tiny.gguf", "Q8_0", split_max_tensors=100)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) > 1
    folder = prepare_folder(parts[1], tmp_path / "cache")
    assert read_reference(folder)[0] == parts


REFUSED = [
    ({"architecture": "llama"}, "has the architecture 'llama'; only gemma3 and gemma3n are supported"),
    ({"architecture": "clip"}, "it has encoders, so name the file of the text model"),
    ({"without": ("gemma3n.block_count",)}, "has no metadata key 'gemma3n.block_count'"),
    ({"keys": {"gemma3n.block_count": 0}}, "has 0 for 'gemma3n.block_count', not an integer of at least 1"),
    ({"keys": {"gemma3n.block_count": "x"}}, "has another value for 'gemma3n.block_count'"),
    ({"keys": {"gemma3n.attention.value_length": 8}}, "has keys of 16 and values of 8 elements"),
    (
        {"keys": {"gemma3n.attention.sliding_window_pattern": [True]}},
        "has another value for 'gemma3n.attention.sliding_window_pattern', not an array of 10 numbers",
    ),
    ({"keys": {"gemma3n.attention.layer_norm_rms_epsilon": 0.0}}, "not a finite number above 0"),
    ({"without": ("blk.3.attn_q.weight",)}, "lacks 1 tensors of the model, such as 'blk.3.attn_q.weight'"),
    ({"without": ("token_embd.weight",)}, "has no tensor 'token_embd.weight', which gemma3n needs"),
    ({"renamed": {"blk.3.attn_q.weight": "blk.30.attn_q.weight"}}, "lacks 1 tensors"),
    (
        {"keys": {"gemma3n.feed_forward_length": 64}},
        "has the tensor 'blk.0.ffn_gate.weight' of shape [128, 64]; its metadata say [64, 64]",
    ),
    ({"keys": {"gemma3n.altup.num_inputs": 2}}, "of shape [4, 4]; its metadata say [2, 2]"),
    ({"keys": {"gemma3n.attention.shared_kv_layers": 3}}, "lacks 6 tensors of the model, such as 'blk.5."),
    ({"keys": {"tokenizer.ggml.model": "bert"}}, "has tokenizer.ggml.model 'bert'; only 'llama' and 'gpt2'"),
    ({"without": ("tokenizer.ggml.tokens",)}, "has no array 'tokenizer.ggml.tokens'; put the tokenizer.json"),
    ({"keys": {"tokenizer.ggml.merges": ["ab"]}}, "has the merge 'ab' in 'tokenizer.ggml.merges'"),
]


@pytest.mark.parametrize(("change", "expected"), REFUSED, ids=[text[:40] for _, text in REFUSED])
def test_what_is_refused(edited: Edit, change: dict[str, object], expected: str) -> None:
    message = refusal(edited(**change))
    assert message.startswith("edited.gguf ")
    assert expected in message
    assert "\n" not in message


def test_an_unknown_tensor(edited: Edit) -> None:
    path = edited(extra={"blk.10.proj.weight": 4})
    assert "has the tensor 'blk.10.proj.weight', which no gemma3n of 10 layers has" in refusal(path)


def test_a_folder_with_several_models(file: Path, tiny: Path, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(file, tmp_path / name)
    write_mmproj(tiny, tmp_path / "mmproj-a.gguf")
    message = refusal(tmp_path)
    assert "has 2 GGUF files of text models (a.gguf, b.gguf); set MODEL_NAME to one of its files" in message
    (tmp_path / "b.gguf").unlink()
    assert read_reference(prepare_folder(tmp_path, tmp_path / "cache"))[0] == [tmp_path / "a.gguf"]
