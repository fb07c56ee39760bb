"""Infinity and NaN are found, wherever they are."""

import pytest
import torch

from gemma_model.cpu import kernels
from gemma_model.cpu.kernels import is_finite


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_infinity_and_nan_are_found_at_any_position(
    value: float, dtype: torch.dtype, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled and not kernels.load():
        pytest.skip("no compiler or no processor for the kernels here; the log says which")
    if not compiled:
        monkeypatch.setattr(kernels, "_suits_kernel", lambda _: False)
    whole = torch.full((3, 40, 1000), torch.finfo(dtype).max, dtype=dtype)
    whole[0] = torch.finfo(dtype).min
    for x in (whole, whole[:, 5:20], whole[1], whole[0, :, 3], whole[:0]):
        assert is_finite([x])
    places: list[tuple[int, int, int]] = [(0, 0, 0), (2, 39, 999), (1, 7, 500)]
    for place in places:
        broken = whole.clone()
        broken[place] = value
        assert not is_finite([whole, broken])
        assert is_finite([broken[:, 5:20]]) == (place[1] != 7)
