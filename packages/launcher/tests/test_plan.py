"""The planner: against tensors that are counted, and against the design's figures."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gemma_launcher import hub
from gemma_launcher.__main__ import main
from gemma_launcher.errors import CannotStart
from gemma_launcher.plan.advice import Wish, advise
from gemma_launcher.plan.count import count, slot_bytes, table_row
from gemma_launcher.plan.memory import GIB, MIB, in_gib, parse
from gemma_launcher.plan.shape import BUILT_IN, Shape

E4B, E2B = "google/gemma-3n-E4B-it", "google/gemma-3n-E2B-it"


def built_in(name: str) -> Shape:
    return Shape.read(BUILT_IN[name.lower()])


def about(number: float) -> Any:
    """The design's figures are rounded: within 1 %."""
    return pytest.approx(number, rel=0.01)


def test_the_figures_of_the_design_at_e4b() -> None:
    shape = built_in(E4B)
    parameters = count(shape)
    assert parameters.total == about(7.85e9)
    assert parameters.total * 2 == about(15.7e9)
    assert advise(shape, Wish(memory=80 * GIB)).weights == about(11.0e9)
    assert parameters.per_layer_table == about(2.35e9)
    assert slot_bytes(shape.text, 32_768, 2) == 272 * MIB
    assert slot_bytes(shape.text, 32_768, 2) - slot_bytes(shape.text, 32_767, 2) == 8192
    assert table_row(shape.text) * 2 == 17_920


def test_the_figures_of_the_design_at_e2b() -> None:
    shape = built_in(E2B)
    assert count(shape).total == about(5.44e9)
    assert slot_bytes(shape.text, 32_768, 2) == 272 * MIB


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from gemma_model.tiny import make  # noqa: PLC0415 - imports torch

    folder = tmp_path_factory.mktemp("plan") / "tiny"
    make(folder)
    return folder


def test_every_part_is_what_the_files_tensors_hold(tiny: Path) -> None:
    from safetensors import safe_open  # noqa: PLC0415

    parts = {"embed_tokens.": 0, "per_layer.": 0, "vision": 0, "audio": 0, "rest": 0}
    with safe_open(tiny / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dictionary
            part = next((part for part in parts if part in name), "rest")
            parts[part] += file.get_tensor(name).numel()
    shape = Shape.read(json.loads((tiny / "config.json").read_text()))
    counted = count(shape, vision_tower=parts["vision"] - vision_embedder(tiny))
    assert counted.embeddings == parts["embed_tokens."]
    assert counted.per_layer_table == parts["per_layer."]
    assert counted.vision == parts["vision"]
    assert counted.audio == parts["audio"]
    assert counted.layers == parts["rest"]


def vision_embedder(folder: Path) -> int:
    from safetensors import safe_open  # noqa: PLC0415

    with safe_open(folder / "model.safetensors", "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys() if "embed_vision" in name)  # noqa: SIM118


@pytest.mark.parametrize("length", [1, 31, 32, 33, 4096])
def test_a_slot_is_what_the_engines_cache_takes(tiny: Path, length: int) -> None:
    from gemma_model.layers.kv_cache import KVCache, bytes_per_slot  # noqa: PLC0415
    from gemma_model.models.gemma3n.config import TextConfig  # noqa: PLC0415

    config = json.loads((tiny / "config.json").read_text())
    text, ours = TextConfig.read(config), slot_bytes(Shape.read(config).text, length, 4)
    assert ours == bytes_per_slot(text, length, 0, 4)
    assert ours == sum(layer.nbytes for layer in KVCache(text, 1, length).layers)


def test_the_unused_keys_and_values_are_those_of_a_layer_that_has_them() -> None:
    shape = built_in(E4B)
    without = Shape.read(
        {**BUILT_IN[E4B.lower()], "text_config": {"model_type": "gemma3n_text", "num_kv_shared_layers": 0}}
    )
    assert count(without).layers - count(shape).layers == count(shape).unused
    assert count(without).total == count(shape).total


def test_a_folder_is_planned_from_its_own_files(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["plan", "--model", str(tiny), "--memory", "64MiB", "--reserve", "1MiB", "--no-ple-host"]) == 0
    )
    said = capsys.readouterr().out
    loaded = sum(1 for line in said.splitlines() if line.endswith(" device"))
    assert loaded == 5, "no table in host memory"
    assert "in float32" in said
    assert "GEMMA_PLE=device" in said


def test_without_weights_an_altered_tower_is_not_guessed(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    assert main(["plan", "--model", str(tmp_path), "--memory", "4G"]) == 0
    assert "vision tower cannot be told from the configuration" in capsys.readouterr().out


def test_what_fits_fits_and_one_more_does_not() -> None:
    for memory in (7 * GIB, 8 * GIB, 12 * GIB, 16 * GIB, 24 * GIB, 141 * 10**9):
        for name in (E4B, E2B):
            advice = advise(built_in(name), Wish(memory))
            if not advice.fits:
                assert advice.room < slot_bytes(built_in(name).text, 2048, 2)
                continue
            assert advice.slots * advice.each <= advice.room
            assert advice.slots == 64 or (advice.slots + 1) * advice.each > advice.room
            assert advice.weights + advice.slots * advice.each < memory


def test_the_table_on_the_device_is_counted() -> None:
    host, device = (advise(built_in(E4B), Wish(40 * GIB, table_on_host=where)) for where in (True, False))
    assert device.weights - host.weights == 262_144 * 35 * 256 * 2


def test_without_towers_their_bytes_stay_in_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    parameters = count(built_in(E2B))
    seeing, reading = (advise(built_in(E2B), Wish(24 * GIB, text_only=blind)) for blind in (False, True))
    assert seeing.weights - reading.weights == (parameters.vision + parameters.audio) * 2
    assert (seeing.media_cache, reading.media_cache) == (256 * MIB, 0)
    assert main(["plan", "--memory", "7.4GiB", "--model", E2B]) == 1
    assert "--text-only" in capsys.readouterr().out
    assert main(["plan", "--memory", "7.4GiB", "--model", E2B, "--text-only"]) == 0
    assert "GEMMA_TOWERS=none" in capsys.readouterr().out


def test_a_wish_is_kept_or_refused_with_what_would_fit() -> None:
    kept = advise(built_in(E4B), Wish(24 * GIB, context=4096, slots=8))
    assert (kept.context, kept.slots) == (4096, 8)
    assert advise(built_in(E4B), Wish(16 * GIB, slots=16)).context == 16_384
    with pytest.raises(CannotStart, match=r"43 slots of 32,768 tokens .* 42 such slots fit"):
        advise(built_in(E4B), Wish(24 * GIB, context=32_768, slots=43))
    with pytest.raises(CannotStart, match="more than the model's 32,768"):
        advise(built_in(E4B), Wish(24 * GIB, context=65_536))


def test_a_model_that_does_not_fit_says_which_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--memory", "8GiB", "--model", E4B]) == 1
    said = capsys.readouterr().out
    assert f"{E4B} does not fit" in said
    (needed,) = re.findall(r"need about (\S+ GiB)", said)
    assert said.endswith(f"{E2B} would: gemma-triton plan --model {E2B} --memory 8GiB\n")
    assert main(["plan", "--memory", needed, "--model", E4B]) == 0
    assert main(["plan", "--memory", "8GiB", "--model", E4B, "--context", "2048", "--slots", "1"]) == 1
    assert main(["plan", "--memory", "1GiB", "--model", E2B]) == 1
    assert "What takes less" in capsys.readouterr().out


def test_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--memory", "8GiB", "--model", "/no/such/folder"]) == 1
    assert capsys.readouterr().err == "error: there is no folder /no/such/folder\n"


def test_a_built_in_model_needs_no_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> Path:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(hub, "config", refuse)
    assert main(["plan", "--memory", "24GiB", "--model", E4B]) == 0
    assert "GEMMA_MAX_MODEL_LEN=32768" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8GiB", 8 * GIB),
        ("8G", 8 * GIB),
        ("8GB", 8 * 10**9),
        ("1.5 GiB", 3 * GIB // 2),
        ("512M", 512 * MIB),
        ("100", 100),
    ],
)
def test_amounts_of_memory(text: str, count: int) -> None:
    assert parse(text) == count


@pytest.mark.parametrize(
    "text", ["", "8 GiBs", "eight", "8gb", "-8G", "8,5G", "8e9", "GiB", "8G8", "8iB", "٨G"]
)
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(CannotStart, match="is no amount of memory"):
        parse(text)


def test_amounts_read_well() -> None:
    assert [in_gib(n) for n in (272 * MIB, 24 * GIB, 1536 * 1024, 8192)] == [
        "272 MiB",
        "24.00 GiB",
        "1.5 MiB",
        "8 KiB",
    ]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "llama"}, "is no Gemma 3n text model"),
        (
            {"text_config": {"model_type": "gemma3n_text", "intermediate_size": [1, 2]}},
            "do not fit the number",
        ),
        ({"text_config": {"model_type": "gemma3n_text", "hidden_size": "wide"}}, "cannot be understood"),
        ({"text_config": {"model_type": "gemma3n_text"}, "dtype": "int4"}, "'int4' is not served"),
    ],
)
def test_a_configuration_that_makes_no_sense(config: dict[str, Any], words: str) -> None:
    with pytest.raises(CannotStart, match=words):
        Shape.read(config)


def test_the_page_shows_what_the_planner_says() -> None:
    script = Path(__file__).parents[3] / "docs" / "plans.py"
    run = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
