"""A very short training: every stage runs, is resumed, and the checkpoint is written."""

from pathlib import Path

import pytest
from demo.__main__ import main
from transformers import AutoProcessor, Gemma3nForConditionalGeneration


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_short_training_of_all_stages(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "models" / "nano"
    again = ["--scale=0.005", f"--workshop={tmp_path / 'workshop'}", f"--output={output}"]
    main(again)
    first = (output / "model.safetensors").read_bytes()
    main(again)
    told = capfd.readouterr().out
    assert "text: learnt before" in told
    assert (output / "model.safetensors").read_bytes() == first
    assert len(first) < 16e6
    assert (output / "losses.png").stat().st_size > 1000
    Gemma3nForConditionalGeneration.from_pretrained(output)
    AutoProcessor.from_pretrained(output)
