import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gemma_model.engine.per_layer_preload import PerLayerPreloader
from gemma_model.models.gemma3n.per_layer_embeddings import PerLayerTable
from gemma_model.weights import open_weights
from gemma_model.weights.mapped_matrix import MappedMatrix

from ...memory_maps import is_mapped, mapped_pages

LIKE = torch.ones(1)


@pytest.fixture
def table(model: Any) -> PerLayerTable:
    return PerLayerTable(model.config, open_weights(model.folder))


def rows(table: PerLayerTable) -> Tensor:
    return table.rows([0, 3, 7], LIKE)


def in_file(table: PerLayerTable, folder: Path) -> bool:
    assert isinstance(table.table, MappedMatrix)
    return all(is_mapped(part, folder / "model.safetensors") for part in table.table.parts)


def test_reading_the_table_maps_its_pages_and_copies_nothing(model: Any, table: PerLayerTable) -> None:
    expected = rows(table)
    assert table.read_into_page_cache(lambda: False)
    assert in_file(table, model.folder)
    assert isinstance(table.table, MappedMatrix)
    for part in table.table.parts:
        mapped, pages = mapped_pages(part)
        assert mapped >= pages - 1, "all but a part of the last one"
    torch.testing.assert_close(rows(table), expected, rtol=0, atol=0)


def test_reading_stops_when_told_to(table: PerLayerTable) -> None:
    asked = list[int]()

    def stopped() -> bool:
        asked.append(1)
        return len(asked) == 1

    assert not table.read_into_page_cache(stopped)
    assert len(asked) == 1


def test_reading_gives_way_to_requests(table: PerLayerTable, monkeypatch: pytest.MonkeyPatch) -> None:
    niceness, ours = list[int](), os.getpriority(os.PRIO_PROCESS, 0)

    def look(given_up: Any) -> bool:
        niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return False

    monkeypatch.setattr(table, "read_into_page_cache", look)
    preloader = PerLayerPreloader(table, free=2 * table.nbytes)
    preloader.close()
    assert niceness == [19]
    assert os.getpriority(os.PRIO_PROCESS, 0) == ours, "that thread alone"


def test_the_table_is_read_where_there_is_room(table: PerLayerTable, monkeypatch: pytest.MonkeyPatch) -> None:
    complete, read = list[bool](), table.read_into_page_cache

    def noted(stopped: Callable[[], bool]) -> bool:
        complete.append(read(stopped))
        return complete[-1]

    monkeypatch.setattr(table, "read_into_page_cache", noted)
    preloader = PerLayerPreloader(table, free=2 * table.nbytes)
    assert preloader.thread is not None
    preloader.thread.join(timeout=30)
    preloader.close()
    assert complete == [True]


@pytest.mark.parametrize("known", [True, False])
def test_it_stays_in_the_file_where_there_is_little(model: Any, table: PerLayerTable, known: bool) -> None:
    preloader = PerLayerPreloader(table, free=2 * table.nbytes - 1 if known else None)
    assert preloader.thread is None
    preloader.close()
    assert in_file(table, model.folder)
