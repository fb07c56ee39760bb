"""The native engine: a thread that plans, runs and commits steps for as long as there is work."""

import logging
import threading
from concurrent.futures import Future
from pathlib import Path

from gemma_model.engine.loop import Loop
from gemma_model.engine.memory import free_host_memory
from gemma_model.engine.scheduler import Scheduler
from gemma_model.engine.slots import Slots
from gemma_model.protocol import EngineInfo, Generation, Listener, Observation
from gemma_model.settings import Settings

log = logging.getLogger(__name__)


class NativeEngine:
    """The Engine protocol over our own decoder.

    Args:
        checkpoint: its folder.
        settings: settings.

    Raises:
        InvalidRequest: when the checkpoint cannot be honoured, or the cache does not fit.
    """

    def __init__(self, checkpoint: Path, settings: Settings | None = None) -> None:
        loaded: Future[None] = Future()
        self._failure: str | None = None
        # Loads and runs in one thread: OpenMP gives each thread that it serves a pool of its own, and the
        # workers of two pools on the same cores sleep between loops instead of waiting for the next one.
        self._thread = threading.Thread(
            target=self._live, args=(checkpoint, settings or Settings(), loaded), name="engine", daemon=True
        )
        self._thread.start()
        loaded.result()

    def submit(self, generation: Generation, listen: Listener) -> int:
        """See ``Loop.submit``."""
        return self._loop.submit(generation, listen)

    def cancel(self, number: int, choice: int | None = None) -> None:
        """See ``Loop.cancel``."""
        self._loop.cancel(number, choice)

    def info(self) -> EngineInfo:
        """A snapshot."""
        load = self._loop.load()
        return EngineInfo(
            name="native",
            device=self._device,
            dtype=self._dtype,
            memory_bytes=self._memory_bytes,
            max_num_seqs=self._max_num_seqs,
            running=load.running,
            waiting=load.waiting,
            slots_used=load.slots_used,
            cache_tokens=self._cache_tokens,
            cache_tokens_used=load.cache_tokens_used,
            totals=load.totals,
            failure=self._failure,
        )

    def observations(self) -> list[Observation]:
        """See ``Engine.observations``."""
        return self._loop.observations()

    def close(self) -> None:
        """Cancel everything, and return when the thread has ended."""
        self._loop.stop()
        self._thread.join()
        self._runner.close()
        if self._residence is not None:
            self._residence.close()

    def _live(self, checkpoint: Path, settings: Settings, loaded: "Future[None]") -> None:
        try:
            self._load(checkpoint, settings)
        except Exception as error:
            loaded.set_exception(error)
        else:
            loaded.set_result(None)
            self._serve()

    def _load(self, checkpoint: Path, settings: Settings) -> None:
        from gemma_model.engine.residence import Residence  # noqa: PLC0415 - torch takes seconds to import
        from gemma_model.engine.runner import Loaded  # noqa: PLC0415

        loaded = Loaded(checkpoint, settings)
        self._device, self._dtype = loaded.device_name, str(loaded.dtype).removeprefix("torch.")
        self._memory_bytes, self._max_num_seqs = loaded.memory_bytes, settings.max_num_seqs
        self._cache_tokens = settings.max_num_seqs * loaded.length
        self._runner = loaded.runner
        slots = Slots(settings.max_num_seqs, loaded.window, loaded.ring)
        scheduler = Scheduler(slots, settings.max_queue, settings.prefill_chunk)
        self._loop = Loop(loaded.runner, scheduler, loaded.length)
        table = loaded.host_table if settings.ple == "auto" else None
        self._residence = None if table is None else Residence(table, free_host_memory())

    def _serve(self) -> None:
        try:
            while self._loop.wait():
                self._loop.step()
            self._loop.drain()
        except Exception as error:
            log.exception("the engine has stopped working")
            self._failure = f"{type(error).__name__}: {error}"
            self._loop.abandon(error)
