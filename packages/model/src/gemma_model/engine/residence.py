"""The per-layer table is read from the file at first, and brought into memory where there is room."""

import logging
import os
import sys
import threading
import time

from gemma_model.engine.memory import GIB
from gemma_model.models.model import HostTable

log = logging.getLogger(__name__)
SHARE = 0.5
"""Of the memory that is free, at most so much is taken; what is read from a file can be dropped at need."""

LEAST_URGENT = 19
"""Niceness: requests that come meanwhile take no longer than others."""


class Residence:
    """Copies a table into memory while requests run.

    Args:
        table: memory-mapped.
        free: bytes of host memory; ``None`` when nobody can tell, and all stays in the file.
    """

    def __init__(self, table: HostTable, free: int | None) -> None:
        self._table, self._given_up = table, threading.Event()
        self.thread: threading.Thread | None = None
        size = table.nbytes
        if free is None or size > free * SHARE:
            log.info("per-layer table: its %.2f GiB are read from the file", size / GIB)
            return
        self.thread = threading.Thread(target=self._bring, name="residence", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Give up, and return when the thread has ended."""
        self._given_up.set()
        if self.thread is not None:
            self.thread.join()

    def _bring(self) -> None:
        if sys.platform == "linux":  # where it is the priority of this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_URGENT)
        began = time.monotonic()
        if self._table.copy_into_memory(self._given_up.is_set):
            size, took = self._table.nbytes / GIB, time.monotonic() - began
            log.info("per-layer table: %.2f GiB are in memory after %.0f s", size, took)
