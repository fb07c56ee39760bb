import os
import sys
from pathlib import Path

import pytest

from gemma_launcher import checkpoint, models
from gemma_launcher.errors import CannotStart
from gemma_launcher.models import Checkpoint
from gemma_launcher.settings import read

REAL = "HF_TOKEN=your_token MODEL_NAME=google/gemma-3n-E4B-it make serve"


def quiet(text: str) -> None:
    pass


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout, instead of this one."""
    monkeypatch.setattr(models, "root", lambda: tmp_path)
    return tmp_path


def resolve(name: str, say: list[str] | None = None) -> Checkpoint:
    return models.resolve(read({"model_name": name}), os.environ, (say if say is not None else []).append)


def test_a_folder_is_named_by_its_last_part(checkpoint_folder: Path) -> None:
    assert resolve(f"{checkpoint_folder}/") == Checkpoint("toy-checkpoint", checkpoint_folder)


def test_a_checkpoint_with_a_name_of_its_own(checkpoint_folder: Path) -> None:
    settings = read({"model_name": "google/gemma-3n-E4B-it", "gemma_checkpoint": checkpoint_folder})
    found = models.resolve(settings, os.environ, quiet)
    assert found == Checkpoint("google/gemma-3n-E4B-it", checkpoint_folder)


def test_a_folder_wins_over_a_hub_id(checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint_folder.parent.parent)
    name = f"{checkpoint_folder.parent.name}/{checkpoint_folder.name}"
    assert resolve(name).folder == checkpoint_folder


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/no-such-folder", "a/b/c"])
def test_what_looks_like_a_path_is_no_hub_id(name: str) -> None:
    with pytest.raises(CannotStart, match="no such folder"):
        resolve(name)


@pytest.mark.parametrize("name", ["gemma3n", "google/", "google/gemma 3n", "google/--", "-/-"])
def test_what_is_neither_says_so(name: str) -> None:
    with pytest.raises(CannotStart, match="is neither a folder nor a hub id"):
        resolve(name)


def test_the_bundled_demo_comes_first(checkout: Path, checkpoint_folder: Path) -> None:
    (checkout / "models").mkdir()
    checkpoint_folder.rename(checkout / models.BUNDLED)
    found = resolve("")
    assert (found.name, found.note) == ("gemma3n-nano", models.DEMO)
    assert REAL in found.note


def test_the_bundled_demo_lies_beside_the_model_repository_as_well(
    checkout: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an installation brings both, wherever it is called."""
    monkeypatch.setattr(models, "root", lambda: checkout / "elsewhere")
    (checkout / "models").mkdir()
    checkpoint_folder.rename(checkout / models.BUNDLED)
    settings = read({"gemma_model_repository": checkout / "model_repository"})
    assert models.on_this_machine(settings) == checkout / models.BUNDLED
    assert models.on_this_machine(read({})) is None


def test_the_tiny_checkpoint_can_be_asked_for_beside_the_bundled_demo(
    checkout: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker(monkeypatch, checkout, COPY.format(str(checkpoint_folder)))
    (checkout / models.BUNDLED).mkdir(parents=True)
    assert resolve("gemma3n-tiny").folder == checkout / models.TINY


def maker(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Makes ``text`` the script that makes the tiny checkpoint."""
    (folder / "toy_maker.py").write_text(text)
    monkeypatch.setattr(models, "_MAKER", "toy_maker")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


COPY = "import shutil, sys; shutil.copytree({!r}, sys.argv[1])"


def test_the_tiny_checkpoint_is_made_once_and_again_when_damaged(
    checkout: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker(monkeypatch, checkout, COPY.format(str(checkpoint_folder)))
    said: list[str] = []
    first = resolve("", said)
    assert first == Checkpoint("gemma3n-tiny", checkout / models.TINY, models.GIBBERISH)
    assert REAL in first.note
    os.utime(first.folder / "config.json")
    assert resolve("", said) == first
    assert len(said) == 1
    (first.folder / "model.safetensors").write_bytes(b"")
    resolve("", said)
    checkpoint.check(first.folder)
    assert len(said) == 2
    assert [path.name for path in first.folder.parent.iterdir()] == ["gemma3n-tiny"]


def test_a_newer_script_makes_it_anew(
    checkout: Path, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker(monkeypatch, checkout, COPY.format(str(checkpoint_folder)))
    said: list[str] = []
    os.utime(resolve("", said).folder / "config.json", (1, 1))
    resolve("", said)
    assert len(said) == 2


def test_a_script_that_fails_is_one_sentence(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker(monkeypatch, checkout, "raise SystemExit(3)")
    with pytest.raises(CannotStart, match="could not be made \\(exit code 3"):
        resolve("")
    assert list((checkout / ".cache").iterdir()) == []


def test_no_place_for_the_tiny_checkpoint(checkout: Path) -> None:
    (checkout / ".cache").touch()
    with pytest.raises(CannotStart, match=r"could not be made \(\S+/.cache: File exists\); set MODEL_NAME"):
        resolve("")


def test_a_script_that_crashes_names_its_signal(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker(monkeypatch, checkout, "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(CannotStart, match="could not be made \\(killed by SIGSEGV"):
        resolve("")
