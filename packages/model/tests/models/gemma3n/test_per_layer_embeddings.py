import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gemma_model.engine.per_layer_preload import PerLayerPreloader
from gemma_model.models.gemma3n.per_layer_embeddings import PerLayerTable
from gemma_model.weights import open_weights
from gemma_model.weights.mapped_matrix import MappedMatrix

from ...memory_maps import is_mapped

LIKE = torch.ones(1)


@pytest.fixture
def table(model: Any) -> PerLayerTable:
    return PerLayerTable(model.config, open_weights(model.folder))


def rows(table: PerLayerTable) -> Tensor:
    return table.rows([0, 3, 7], LIKE)


def in_file(table: PerLayerTable, folder: Path) -> bool:
    assert isinstance(table.table, MappedMatrix)
    return all(is_mapped(part, folder / "model.safetensors") for part in table.table.parts)


def test_the_copy_in_memory_has_the_same_rows(model: Any, table: PerLayerTable) -> None:
    expected = rows(table)
    assert table.copy_into_memory(lambda: False)
    assert not in_file(table, model.folder)
    torch.testing.assert_close(rows(table), expected, rtol=0, atol=0)


def test_an_aborted_copy_keeps_using_the_file(model: Any, table: PerLayerTable) -> None:
    assert not table.copy_into_memory(lambda: True)
    assert in_file(table, model.folder)


def test_copying_gives_way_to_requests(table: PerLayerTable, monkeypatch: pytest.MonkeyPatch) -> None:
    niceness, ours = list[int](), os.getpriority(os.PRIO_PROCESS, 0)

    def look(given_up: Any) -> bool:
        niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return False

    monkeypatch.setattr(table, "copy_into_memory", look)
    preloader = PerLayerPreloader(table, free=2 * table.nbytes)
    preloader.close()
    assert niceness == [19]
    assert os.getpriority(os.PRIO_PROCESS, 0) == ours, "that thread alone"


def test_the_table_comes_into_memory_where_there_is_room(model: Any, table: PerLayerTable) -> None:
    expected, size = rows(table), table.nbytes
    preloader = PerLayerPreloader(table, free=2 * size)
    assert preloader.thread is not None
    preloader.thread.join(timeout=30)
    preloader.close()
    assert not in_file(table, model.folder)
    torch.testing.assert_close(rows(table), expected, rtol=0, atol=0)


@pytest.mark.parametrize("known", [True, False])
def test_it_stays_in_the_file_where_there_is_little(model: Any, table: PerLayerTable, known: bool) -> None:
    preloader = PerLayerPreloader(table, free=2 * table.nbytes - 1 if known else None)
    assert preloader.thread is None
    preloader.close()
    assert in_file(table, model.folder)
