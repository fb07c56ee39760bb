"""The quality benchmark, on the tiny checkpoint and without the exam."""

from pathlib import Path

import pytest
import torch
from benchmarks.quality import Difference, Form, exam_cell, main


def test_the_difference_of_two_distributions() -> None:
    first = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]).log()
    second = torch.tensor([[0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]).log()
    found = Difference.between(first, second)
    # 0.5 ln (0.5 / 0.25) + 0.25 ln (0.25 / 0.5) = 0.25 ln 2 at the first position, and 0 at the second
    assert found.divergence == pytest.approx(0.25 * 0.693147 / 2, rel=1e-5)
    assert found.highest == pytest.approx(0.25 * 0.693147, rel=0.02)
    assert found.agreement == 0.5
    same = Difference.between(first, first)
    assert (same.divergence, same.agreement) == (0, 1)


def test_the_forms() -> None:
    assert Form.read("models/one") == Form("models/one")
    assert str(Form.read("models/one@int4")) == "one, GEMMA_QUANTIZE=int4"
    with pytest.raises(Exception, match="'int3' is none of none, int8, int4"):
        Form.read("models/one@int3")


def test_the_exam_is_compared_in_points() -> None:
    assert exam_cell(80, 100, (90, 100)) == "80.0% (-10.0; ± 4.0)"


def test_int8_is_nearer_than_int4(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tiny), f"{tiny}@int8", f"{tiny}@int4"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| gemma")]
    assert [row[0] for row in rows] == [
        "| gemma3n-tiny",
        "| gemma3n-tiny, GEMMA_QUANTIZE=int8",
        "| gemma3n-tiny, GEMMA_QUANTIZE=int4",
    ]
    sizes = [float(row[1].removesuffix(" MB")) for row in rows]
    divergences = [float(row[2]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert divergences == sorted(divergences)
    assert divergences[1] > 0
