"""Plans for quantised weights."""

import json
from pathlib import Path

import pytest

from gemma_launcher.__main__ import main
from gemma_launcher.byte_units import GIB
from gemma_launcher.tools.memory_planner.model_shape import ModelShape
from gemma_launcher.tools.memory_planner.planner import PlanRequest, plan_memory
from gemma_launcher.tools.memory_planner.weight_format import WeightFormat

E4B = "google/gemma-3n-E4B-it"


@pytest.fixture(scope="module", params=["int8", "int4"])
def quantized(request: pytest.FixtureRequest, tiny: Path) -> tuple[Path, str]:
    """The tiny checkpoint as ``gemma-triton quantize`` writes it."""
    from gemma_model.weights.quantize_checkpoint import main as quantize  # noqa: PLC0415 - imports torch

    folder = tiny.parent / f"tiny-{request.param}"
    quantize([str(tiny), str(folder), "--format", request.param])
    return folder, request.param


@pytest.mark.parametrize("at_load", [False, True])
@pytest.mark.parametrize("ple", ["host", "device"])
def test_the_bytes_of_quantised_weights_are_those_of_the_engine(
    tiny: Path, quantized: tuple[Path, str], at_load: bool, ple: str
) -> None:
    import torch  # noqa: PLC0415

    from gemma_model.models.loader import load_model  # noqa: PLC0415
    from gemma_model.settings import Settings  # noqa: PLC0415

    folder, quantize = (tiny if at_load else quantized[0]), (quantized[1] if at_load else None)
    config = json.loads((folder / "config.json").read_text())
    shape, on_host = ModelShape.read(config), ple == "host"
    stored = WeightFormat.read(config, shape.text_config, quantize, on_host)
    plan = plan_memory(shape, PlanRequest(8 * GIB, text_only=True, ple_on_host=on_host, format=stored))
    settings = Settings.model_validate(
        {"compile": "off", "towers": "none", "ple": ple, "quantize": quantize or "none"}
    )
    assert plan.weights == load_model(folder, settings, torch.device("cpu")).weight_bytes


def test_the_format_is_reported(
    tiny: Path, quantized: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, name = quantized
    assert main(["plan", "--model", str(folder), "--memory", "2GiB"]) == 0
    said = capsys.readouterr().out
    assert f"compressed-tensors, {name}, groups of 32" in said
    assert "GEMMA_QUANTIZE" not in said
    assert main(["plan", "--model", str(tiny), "--memory", "2GiB", "--quantize", name]) == 0
    assert f"  GEMMA_QUANTIZE={name}\n" in capsys.readouterr().out
    assert main(["plan", "--model", str(folder), "--memory", "2GiB", "--quantize", name]) == 1
    assert "the checkpoint is quantised already: int" in capsys.readouterr().err


def test_e4b_with_4_bits_fits_where_bf16_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--memory", "8GiB", "--model", E4B]) == 1
    assert "With 4 bits it fits: add --quantize int4" in capsys.readouterr().out
    assert main(["plan", "--memory", "8GiB", "--model", E4B, "--quantize", "int4"]) == 0


def test_an_unsupported_format_is_named(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((tiny / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "gptq"}})
    )
    assert main(["plan", "--model", str(tmp_path), "--memory", "2GiB"]) == 1
    assert "quantization_config.quant_method: 'gptq' is not supported" in capsys.readouterr().err
