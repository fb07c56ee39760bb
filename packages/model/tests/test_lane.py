import threading

import pytest

from gemma_model.lane import Lane
from gemma_wire import Overloaded


def test_work_is_done_in_order_and_counted_until_it_ends() -> None:
    lane, done, go = Lane("x", threads=1, limit=3), list[int](), threading.Event()
    lane.submit(lambda: done.append(int(go.wait(5))))
    for number in (2, 3):
        lane.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    with pytest.raises(Overloaded, match="3 requests"):
        lane.submit(lambda: done.append(4))
    assert lane.pending == 3
    go.set()
    lane.close()
    assert (done, lane.pending) == ([1, 2, 3], 0)


def _break() -> None:
    raise ValueError("broken")


def test_work_that_breaks_leaves_its_place() -> None:
    lane = Lane("x", threads=1, limit=1)
    lane.submit(_break)
    lane.close()
    assert lane.pending == 0
