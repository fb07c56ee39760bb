"""The benchmark for a GPU runs: here at toy size on the CPU, where its figures say nothing."""

import sys

import pytest
import torch
from benchmarks import gpu


def asked(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", *line.split()])
    gpu.main()


def test_it_reports_speed_relative_to_the_bound_and_the_first_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(monkeypatch, "--device cpu --config tiny --batch 1 3 --prompt 20 30 --context 40 --rounds 1")
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    products, decoders = rows[:7], rows[7:]
    assert [row[1] for row in products[2:]] == ["1", "4", "16", "64", "512"]
    assert all(float(row[at].strip("| ")) > 0 for row in products[2:] for at in (2, 4, 6))
    assert {row[3] for row in products[2:]} == {"-"}  # the library multiplies on GPUs alone
    assert len(decoders) == 3 * 8  # bf16, int8 and int4
    for at in (0, 8, 16):
        part = decoders[at : at + 8]
        assert [row[0] for row in part] == [
            "| batch",
            "| ---",
            "| 1",
            "| 3",
            "| prompt",
            "| ---",
            "| 20",
            "| 30",
        ]
        assert all(float(cell) > 0 for row in part[2:4] for cell in row[1:5])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="needs a GPU"):
        asked(monkeypatch, "")
