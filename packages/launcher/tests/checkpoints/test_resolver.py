import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from gemma_launcher import paths
from gemma_launcher.checkpoints import gguf, resolver, validation
from gemma_launcher.checkpoints.resolver import ResolvedCheckpoint
from gemma_launcher.checkpoints.validation import read_config, tensor_sizes
from gemma_launcher.errors import CommandError
from gemma_launcher.settings import load_settings
from gemma_launcher.tools import doctor
from gemma_launcher.tools.memory_planner import command as command_module
from gemma_launcher.tools.memory_planner.model_shape import ModelShape

REAL = "HF_TOKEN=your_token MODEL_NAME=google/gemma-3n-E4B-it make serve"


def quiet(text: str) -> None:
    pass


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout, instead of this one."""
    monkeypatch.setattr(resolver, "project_root", lambda: tmp_path)
    monkeypatch.setattr(resolver, "cache_folder", lambda: tmp_path / ".cache")
    return tmp_path


def resolve(name: str, say: list[str] | None = None) -> ResolvedCheckpoint:
    return resolver.resolve_checkpoint(
        load_settings({"model_name": name}), os.environ, (say if say is not None else []).append
    )


def test_a_folder_is_named_after_itself(checkpoint_folder: Path) -> None:
    assert resolve(f"{checkpoint_folder}/") == ResolvedCheckpoint("toy-checkpoint", checkpoint_folder)


def test_a_folder_with_a_public_name(checkpoint_folder: Path) -> None:
    settings = load_settings({"model_name": "google/gemma-3n-E4B-it", "gemma_checkpoint": checkpoint_folder})
    found = resolver.resolve_checkpoint(settings, os.environ, quiet)
    assert found == ResolvedCheckpoint("google/gemma-3n-E4B-it", checkpoint_folder)


def test_a_folder_wins_over_a_hub_id(checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint_folder.parent.parent)
    name = f"{checkpoint_folder.parent.name}/{checkpoint_folder.name}"
    assert resolve(name).folder == checkpoint_folder


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/no-such-folder", "a/b/c"])
def test_a_path_is_not_a_hub_id(name: str) -> None:
    with pytest.raises(CommandError, match="no such folder"):
        resolve(name)


@pytest.mark.parametrize("name", ["gemma3n", "google/", "google/gemma 3n", "google/--", "-/-"])
def test_neither_a_folder_nor_a_hub_id(name: str) -> None:
    with pytest.raises(CommandError, match="is neither a folder nor a hub id"):
        resolve(name)


def test_the_bundled_demo_is_the_default(checkout: Path, checkpoint_folder: Path) -> None:
    (checkout / "models").mkdir()
    checkpoint_folder.rename(checkout / resolver.BUNDLED_CHECKPOINT)
    found = resolve("")
    assert (found.name, found.note) == ("gemma3n-nano", resolver.DEMO_NOTE)
    assert REAL in found.note


def test_the_bundled_demo_is_found_next_to_the_model_repository(
    checkout: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an installation brings both, wherever it is called."""
    monkeypatch.setattr(resolver, "project_root", lambda: checkout / "elsewhere")
    (checkout / "models").mkdir()
    checkpoint_folder.rename(checkout / resolver.BUNDLED_CHECKPOINT)
    settings = load_settings({"gemma_model_repository": checkout / "model_repository"})
    assert resolver.local_checkpoint(settings) == checkout / resolver.BUNDLED_CHECKPOINT
    assert resolver.local_checkpoint(load_settings({})) is None


def test_the_tiny_checkpoint_can_be_requested_explicitly(
    checkout: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker(monkeypatch, checkout, COPY.format(str(checkpoint_folder)))
    (checkout / resolver.BUNDLED_CHECKPOINT).mkdir(parents=True)
    assert resolve("gemma3n-tiny").folder == checkout / ".cache" / resolver.TINY_CHECKPOINT


def test_without_a_checkout_the_note_says_that_there_is_no_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "project_root", lambda: None)
    note = resolver._random_weights_note("")
    assert note.startswith("The demo model is part of a checkout of the repository (models/gemma3n-nano)")
    assert REAL.replace("make serve", "gemma-triton serve") in note
    assert resolver._random_weights_note("gemma3n-tiny") == resolver.RANDOM_WEIGHTS_NOTE
    assert resolver.local_checkpoint(load_settings({})) is None


def test_the_cache_is_that_of_the_user_without_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "project_root", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert paths.cache_folder() == Path("/cache/gemma-triton")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert paths.cache_folder() == Path.home() / ".cache" / "gemma-triton"


def maker(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Makes ``text`` the script that makes the tiny checkpoint."""
    (folder / "toy_maker.py").write_text(text)
    monkeypatch.setattr(resolver, "_GENERATOR_MODULE", "toy_maker")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


COPY = "import shutil, sys; shutil.copytree({!r}, sys.argv[1])"


def test_the_tiny_checkpoint_is_generated_once_and_again_when_damaged(
    checkout: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker(monkeypatch, checkout, COPY.format(str(checkpoint_folder)))
    said: list[str] = []
    first = resolve("", said)
    assert first == ResolvedCheckpoint(
        "gemma3n-tiny", checkout / ".cache" / resolver.TINY_CHECKPOINT, resolver.RANDOM_WEIGHTS_NOTE
    )
    assert REAL in first.note
    os.utime(first.folder / "config.json")
    assert resolve("", said) == first
    assert len(said) == 1
    (first.folder / "model.safetensors").write_bytes(b"")
    resolve("", said)
    validation.validate_checkpoint(first.folder)
    assert len(said) == 2
    assert [path.name for path in first.folder.parent.iterdir()] == ["gemma3n-tiny"]


def test_the_tiny_checkpoint_is_generated_again_by_a_newer_generator(
    checkout: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker(monkeypatch, checkout, COPY.format(str(checkpoint_folder)))
    said: list[str] = []
    os.utime(resolve("", said).folder / "config.json", (1, 1))
    resolve("", said)
    assert len(said) == 2


def test_a_failed_generator_is_one_sentence(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker(monkeypatch, checkout, "raise SystemExit(3)")
    with pytest.raises(CommandError, match="could not be generated \\(exit code 3"):
        resolve("")
    assert list((checkout / ".cache").iterdir()) == []


def test_the_cache_folder_cannot_be_created(checkout: Path) -> None:
    (checkout / ".cache").touch()
    with pytest.raises(
        CommandError, match=r"could not be generated \(\S+/.cache: File exists\); set MODEL_NAME"
    ):
        resolve("")


def test_a_script_that_crashes_names_its_signal(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker(monkeypatch, checkout, "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(CommandError, match="could not be generated \\(killed by SIGSEGV"):
        resolve("")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny checkpoint, and another with the same as a GGUF file."""
    pytest.importorskip("gguf", reason="the package gguf, which writes GGUF files, is not installed")
    folder = tmp_path_factory.mktemp("written")
    tiny, file = folder / "tiny", folder / "gguf" / "tiny-Q8_0.gguf"
    file.parent.mkdir()
    for module, files in (("tiny_checkpoint", (tiny,)), ("gguf_writer", (tiny, file))):
        subprocess.run([sys.executable, "-m", f"gemma_model.testing.{module}", *map(str, files)], check=True)
    return folder


@pytest.fixture
def gguf_file(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny checkpoint as a GGUF file, in a folder of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return tmp_path / "gguf" / "tiny-Q8_0.gguf"


def test_a_gguf_file_or_its_folder(gguf_file: Path) -> None:
    found = resolve(str(gguf_file))
    assert found.name == "tiny-Q8_0"
    assert gguf.referenced_files(found.folder) == [gguf_file]
    of_folder = resolve(str(gguf_file.parent))
    assert (of_folder.name, of_folder.folder) == ("gguf", found.folder)
    named = resolver.resolve_checkpoint(
        load_settings({"model_name": "a/b", "gemma_checkpoint": gguf_file}), os.environ, quiet
    )
    assert named == ResolvedCheckpoint("a/b", found.folder, "Text alone, without encoders")
    tiny, environment = gguf_file.parent.parent / "tiny", {**os.environ}
    environment["GEMMA_ENCODERS"] = str(tiny)
    with_encoders = resolver.checkpoint_folder(gguf_file, environment)
    assert with_encoders != found.folder
    assert resolver.checkpoint_folder(with_encoders, environment) == with_encoders
    with pytest.raises(CommandError, match="GEMMA_ENCODERS is only for GGUF files"):
        resolver.checkpoint_folder(tiny, environment)
    gguf_file.write_bytes(gguf_file.read_bytes()[:-1])
    with pytest.raises(CommandError, match=r"tiny-Q8_0\.gguf is truncated or damaged: .* download it again"):
        validation.validate_checkpoint(found.folder)


def test_a_gguf_file_with_its_encoders(gguf_file: Path) -> None:
    mmproj = gguf_file.with_name("mmproj-BF16.gguf")
    tiny = gguf_file.parent.parent / "tiny"
    command = [sys.executable, "-m", "gemma_model.testing.mmproj_writer", str(tiny), str(mmproj)]
    subprocess.run(command, check=True)
    found = resolve(str(gguf_file))
    assert found.note == f"Images and audio: the encoders of {mmproj}"
    assert gguf.referenced_files(found.folder) == [gguf_file]
    assert gguf.weight_files(found.folder) == [gguf_file, mmproj]
    size = gguf_file.stat().st_size + mmproj.stat().st_size
    assert doctor.weights_size(found.folder) == doctor.weights_size(gguf_file) == size
    settings = load_settings({"gemma_checkpoint": gguf_file})
    shape, _, vision_tower = command_module.find_model(settings, str(gguf_file), None, table_in_file=True)
    tensors = [t for t in tensor_sizes(tiny / "model.safetensors").items() if "vision_tower." in t[0]]
    assert vision_tower == sum(count for _, count in tensors)
    assert shape.audio_config == ModelShape.read(read_config(tiny / "config.json")).audio_config
    text_alone = resolver.checkpoint_folder(gguf_file, {**os.environ, "GEMMA_TOWERS": "none"})
    assert gguf.referenced_encoders(text_alone) is None
    mmproj.write_bytes(mmproj.read_bytes()[:-1])
    with pytest.raises(CommandError, match=r"mmproj-BF16\.gguf is truncated or damaged: "):
        validation.validate_checkpoint(found.folder)
    with pytest.raises(CommandError, match=r"mmproj-BF16\.gguf is truncated .* GEMMA_TOWERS=none for text"):
        resolve(str(gguf_file))


def test_gguf_files_that_cannot_be_served(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot be served: there is no file .*/missing\.gguf"):
        resolve(str(tmp_path / "missing.gguf"))
    (tmp_path / "other.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(8))
    with pytest.raises(
        CommandError, match=r"other\.gguf has the architecture ''; only gemma3 and gemma3n are"
    ):
        resolve(str(tmp_path))
