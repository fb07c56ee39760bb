"""The memory planner, compared with counted tensors and with published figures."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gemma_launcher.__main__ import main
from gemma_launcher.byte_units import GIB, MIB, format_gib
from gemma_launcher.checkpoints import hub
from gemma_launcher.checkpoints.validation import tensor_sizes
from gemma_launcher.errors import CommandError
from gemma_launcher.tools.memory_planner.kv_cache_size import kv_slot_bytes
from gemma_launcher.tools.memory_planner.model_shape import BUILT_IN, ModelShape
from gemma_launcher.tools.memory_planner.parameter_count import count_parameters, per_layer_row
from gemma_launcher.tools.memory_planner.planner import PlanRequest, plan_memory

E4B, E2B = "google/gemma-3n-E4B-it", "google/gemma-3n-E2B-it"


def built_in(name: str) -> ModelShape:
    return ModelShape.read(BUILT_IN[name.lower()])


def about(number: float) -> Any:
    """Published figures are rounded: within 1 %."""
    return pytest.approx(number, rel=0.01)


def test_e4b_matches_the_published_figures() -> None:
    shape = built_in(E4B)
    parameters = count_parameters(shape)
    assert parameters.total == about(7.85e9)
    assert parameters.total * 2 == about(15.7e9)
    assert plan_memory(shape, PlanRequest(memory=80 * GIB)).weights == about(11.0e9)
    assert parameters.per_layer_table == about(2.35e9)
    assert kv_slot_bytes(shape.text_config, 32_768, 2) == 288 * MIB
    assert kv_slot_bytes(shape.text_config, 32_768, 2) - kv_slot_bytes(shape.text_config, 32_767, 2) == 8192
    assert per_layer_row(shape.text_config) * 2 == 17_920


def test_e2b_matches_the_published_figures() -> None:
    shape = built_in(E2B)
    assert count_parameters(shape).total == about(5.44e9)
    assert kv_slot_bytes(shape.text_config, 32_768, 2) == 288 * MIB


@pytest.mark.parametrize(
    ("size", "parameters", "per_slot"),
    [
        ("270m", 268e6, 3 * 32_768 * 1024 + 15 * 1024 * 1024),
        ("1b", 1.0e9, 4 * 32_768 * 1024 + 22 * 1024 * 1024),
        ("4b", 3.88e9, 5 * 131_072 * 4096 + 29 * 1536 * 4096),
    ],
)
def test_gemma_3_matches_the_published_figures(
    size: str, parameters: float, per_slot: int, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"google/gemma-3-{size}"
    shape = built_in(name if size == "270m" else f"{name}-it")
    counted = count_parameters(shape)
    assert counted.total == counted.decoder == about(parameters)
    assert kv_slot_bytes(shape.text_config, shape.text_config.max_position_embeddings, 2) == per_slot
    assert main(["plan", "--model", f"{name}-it", "--memory", "24GiB"]) == 0
    report = capsys.readouterr().out
    assert "tower" not in report
    assert "GEMMA_PLE" not in report, "it has no per-layer embeddings"


@pytest.mark.parametrize("vision", [False, True])
def test_the_counts_of_gemma_3_match_its_files(tmp_path: Path, vision: bool) -> None:
    from gemma_model.layers.kv_cache import bytes_per_slot  # noqa: PLC0415
    from gemma_model.models.gemma3.config import Gemma3DecoderConfig  # noqa: PLC0415
    from gemma_model.testing.tiny_gemma3 import Gemma3Shape, make  # noqa: PLC0415

    make(tmp_path / "tiny", Gemma3Shape(vision=vision))
    sizes = tensor_sizes(tmp_path / "tiny" / "model.safetensors")
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    shape = ModelShape.read(config)
    in_text = sum(size for name, size in sizes.items() if "vision" not in name and "multi_modal" not in name)
    assert count_parameters(shape).total == in_text
    assert (in_text < sum(sizes.values())) == vision
    spec = Gemma3DecoderConfig.read(config).cache_spec
    assert all(
        kv_slot_bytes(shape.text_config, n, 4, 3) == bytes_per_slot(spec, n, 3, 4) for n in (1, 19, 900)
    )


def test_every_part_matches_the_tensors_of_the_file(tiny: Path) -> None:
    from safetensors import safe_open  # noqa: PLC0415

    parts = {"embed_tokens.": 0, "per_layer.": 0, "vision": 0, "audio": 0, "rest": 0}
    with safe_open(tiny / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dictionary
            part = next((part for part in parts if part in name), "rest")
            parts[part] += file.get_tensor(name).numel()
    shape = ModelShape.read(json.loads((tiny / "config.json").read_text()))
    counted = count_parameters(shape, vision_tower=parts["vision"] - vision_embedder(tiny))
    assert counted.embeddings == parts["embed_tokens."]
    assert counted.per_layer_table == parts["per_layer."]
    assert counted.vision == parts["vision"]
    assert counted.audio == parts["audio"]
    assert counted.layers == parts["rest"]


def vision_embedder(folder: Path) -> int:
    from safetensors import safe_open  # noqa: PLC0415

    with safe_open(folder / "model.safetensors", "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys() if "embed_vision" in name)  # noqa: SIM118


def test_unused_kv_projections_equal_those_of_a_layer_without_sharing() -> None:
    shape = built_in(E4B)
    without = ModelShape.read(
        {**BUILT_IN[E4B.lower()], "text_config": {"model_type": "gemma3n_text", "num_kv_shared_layers": 0}}
    )
    assert count_parameters(without).layers - count_parameters(shape).layers == count_parameters(shape).unused
    assert count_parameters(without).total == count_parameters(shape).total


def test_plan_for_a_local_folder(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["plan", "--model", str(tiny), "--memory", "64MiB", "--reserve", "1MiB", "--no-ple-host"]) == 0
    )
    said = capsys.readouterr().out
    loaded = sum(1 for line in said.splitlines() if line.endswith(" device"))
    assert loaded == 5, "no table in host memory"
    assert "in float32" in said
    assert "GEMMA_PLE=device" in said


def test_a_modified_vision_tower_is_not_estimated_without_weights(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    assert main(["plan", "--model", str(tmp_path), "--memory", "4G"]) == 0
    assert "vision tower cannot be counted from the configuration" in capsys.readouterr().out


def test_the_chosen_slots_fit_and_one_more_does_not() -> None:
    for memory in (7 * GIB, 8 * GIB, 12 * GIB, 16 * GIB, 24 * GIB, 141 * 10**9):
        for name in (E4B, E2B):
            plan = plan_memory(built_in(name), PlanRequest(memory))
            if not plan.fits:
                assert plan.cache_limit < kv_slot_bytes(built_in(name).text_config, 2048, 2)
                continue
            assert plan.slots * plan.slot_bytes <= plan.cache_limit
            assert plan.slots == 64 or (plan.slots + 1) * plan.slot_bytes > plan.cache_limit
            assert plan.weights + plan.slots * plan.slot_bytes < memory


def test_per_layer_embeddings_on_the_device_are_counted() -> None:
    host, device = (
        plan_memory(built_in(E4B), PlanRequest(40 * GIB, ple_on_host=where)) for where in (True, False)
    )
    assert device.weights - host.weights == 262_144 * 35 * 256 * 2


def test_text_only_does_not_load_the_towers(capsys: pytest.CaptureFixture[str]) -> None:
    parameters = count_parameters(built_in(E2B))
    multimodal, text_only = (
        plan_memory(built_in(E2B), PlanRequest(24 * GIB, text_only=off)) for off in (False, True)
    )
    assert multimodal.weights - text_only.weights == (parameters.vision + parameters.audio) * 2
    assert (multimodal.media_cache, text_only.media_cache) == (256 * MIB, 0)
    assert main(["plan", "--memory", "7.4GiB", "--model", E2B]) == 1
    assert "--text-only" in capsys.readouterr().out
    assert main(["plan", "--memory", "7.4GiB", "--model", E2B, "--text-only"]) == 0
    assert "GEMMA_TOWERS=none" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "memory"), [(E4B, "6GB"), (E2B, "4GB")])
def test_with_4_bits_a_laptop_has_room_for_images_and_audio(
    capsys: pytest.CaptureFixture[str], name: str, memory: str
) -> None:
    settings = ["--quantize", "int4", "--context", "8192", "--slots", "1"]
    assert main(["plan", "--memory", memory, "--model", name, "--device", "cpu", *settings]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"audio tower .* mapped from the file", shown)
    assert "GEMMA_TOWERS" not in shown


def test_a_cpu_uses_the_towers_in_the_file() -> None:
    gpu, cpu = (plan_memory(built_in(E2B), PlanRequest(24 * GIB, on_cpu=here)) for here in (False, True))
    assert gpu.weights - cpu.weights == count_parameters(built_in(E2B)).towers * 2
    assert cpu.media_cache == gpu.media_cache


def test_requested_values_are_used_or_refused_with_what_fits() -> None:
    kept = plan_memory(built_in(E4B), PlanRequest(24 * GIB, context=4096, slots=8))
    assert (kept.context, kept.slots) == (4096, 8)
    assert plan_memory(built_in(E4B), PlanRequest(16 * GIB, slots=16)).context == 16_384
    with pytest.raises(CommandError, match=r"43 slots of 32,768 tokens .* 40 such slots fit"):
        plan_memory(built_in(E4B), PlanRequest(24 * GIB, context=32_768, slots=43))
    with pytest.raises(CommandError, match="exceeds the model's 32,768"):
        plan_memory(built_in(E4B), PlanRequest(24 * GIB, context=65_536))


def test_a_model_that_does_not_fit_suggests_a_smaller_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--memory", "8GiB", "--model", E4B]) == 1
    said = capsys.readouterr().out
    assert f"{E4B} does not fit" in said
    (needed,) = re.findall(r"need about (\S+ GiB)", said)
    assert said.endswith(f"{E2B} fits: gemma-triton plan --model {E2B} --memory 8GiB\n")
    assert main(["plan", "--memory", needed, "--model", E4B]) == 0
    assert main(["plan", "--memory", "8GiB", "--model", E4B, "--context", "2048", "--slots", "1"]) == 1
    assert main(["plan", "--memory", "1GiB", "--model", E2B]) == 1
    assert "To save memory" in capsys.readouterr().out


def test_a_missing_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--memory", "8GiB", "--model", "/no/such/folder"]) == 1
    assert capsys.readouterr().err == "error: there is no folder /no/such/folder\n"


def test_a_built_in_model_needs_no_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> Path:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(hub, "fetch_config", refuse)
    assert main(["plan", "--memory", "24GiB", "--model", E4B]) == 0
    assert "GEMMA_MAX_MODEL_LEN=32768" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is not a size; use 8GiB"),
        ("-1", "'-1' is not a size"),
        ("1e99", "'1e99' is not a size"),
        ("8", "8 has no unit and would be 8 bytes; use 8GiB or 8MiB"),
        ("8KiB", "8KiB is less than 1 MiB; an example is 8GiB"),
        ("9999TiB", "9999TiB is more than 1024 TiB"),
    ],
)
def test_implausible_memory(capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    assert main(["plan", "--memory", text]) == 1
    assert capsys.readouterr().err.startswith(f"error: --memory: {words}")


def test_implausible_reserve(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--memory", "8 gb", "--reserve", "2"]) == 1
    assert capsys.readouterr().err.startswith("error: --reserve: 2 has no unit")


def test_a_plan_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--memory", "24GiB", "--model", E4B, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["model"], plan["fits"], plan["advice"]) == (E4B, True, [])
    assert plan["settings"]["GEMMA_MAX_NUM_SEQS"] == plan["slots"]
    parts = ("weights", "reserve", "encoder_cache", "kv_cache", "prefix_cache", "headroom")
    assert sum(plan[f"{part}_bytes"] for part in parts) == plan["memory_bytes"] == 24 * GIB


def test_a_plan_that_does_not_fit_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--memory", "8GiB", "--model", E4B, "--json"]) == 1
    plan = json.loads(capsys.readouterr().out)
    assert (plan["fits"], plan["settings"]) == (False, {})
    assert plan["headroom_bytes"] < 0
    assert any("--quantize int4" in sentence for sentence in plan["advice"])


def test_format_gib() -> None:
    assert [format_gib(n) for n in (272 * MIB, 24 * GIB, 1536 * 1024, 8192)] == [
        "272 MiB",
        "24.00 GiB",
        "1.5 MiB",
        "8 KiB",
    ]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "llama"}, "'llama' is not supported, only gemma3_text and gemma3n_text are"),
        ({"model_type": "gemma3_text", "layer_types": ["full_attention"]}, "do not fit the number"),
        (
            {"text_config": {"model_type": "gemma3n_text", "intermediate_size": [1, 2]}},
            "do not fit the number",
        ),
        ({"text_config": {"model_type": "gemma3n_text", "hidden_size": "wide"}}, "config.json is not valid"),
        ({"model_type": "gemma3_text", "num_hidden_layers": 10**9}, "not an integer from 1 to 1000"),
        ({"model_type": "gemma3_text", "num_hidden_layers": "many"}, "not an integer from 1 to 1000"),
        ({"text_config": {"model_type": "gemma3n_text"}, "dtype": "int4"}, "'int4' is not supported"),
    ],
)
def test_an_invalid_configuration(config: dict[str, Any], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        ModelShape.read(config)


def test_the_documentation_shows_the_planners_output() -> None:
    script = Path(__file__).parents[4] / "docs" / "plans.py"
    run = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
