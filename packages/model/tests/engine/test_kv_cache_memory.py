import pytest

from gemma_model.engine.kv_cache_memory import check_fits, longest
from gemma_wire import InvalidRequest


def per_slot(length: int) -> int:
    return 1000 * length + 50_000


def test_what_fits_is_described() -> None:
    line = check_fits(per_slot, slots=4, length=1000, free=10_000_000)
    assert line.startswith("4 slots of 1,000 tokens")


def test_too_large_says_what_would_fit() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_fits(per_slot, slots=16, length=1000, free=10_000_000)
    assert "max_num_seqs=8" in caught.value.message
    assert "max_model_len=512" in caught.value.message
    check_fits(per_slot, slots=8, length=1000, free=10_000_000)
    check_fits(per_slot, slots=16, length=512, free=10_000_000)


def test_unknown_memory_is_not_checked() -> None:
    check_fits(per_slot, slots=10**9, length=1000, free=None)


def test_nothing_fits_into_nothing() -> None:
    assert longest(per_slot, room=0, length=100) == 0
