import threading

import pytest

from gemma_model.worker_pool import WorkerPool
from gemma_wire import Overloaded


def test_work_is_done_in_order_and_counted_until_it_ends() -> None:
    pool, done, go = WorkerPool("x", threads=1, limit=3), list[int](), threading.Event()
    pool.submit(lambda: done.append(int(go.wait(5))))
    for number in (2, 3):
        pool.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    with pytest.raises(Overloaded, match="3 requests"):
        pool.submit(lambda: done.append(4))
    assert pool.pending == 3
    go.set()
    pool.close()
    assert (done, pool.pending) == ([1, 2, 3], 0)


def _break() -> None:
    raise ValueError("broken")


def test_failed_work_frees_its_place() -> None:
    pool = WorkerPool("x", threads=1, limit=1)
    pool.submit(_break)
    pool.close()
    assert pool.pending == 0
