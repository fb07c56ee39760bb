"""The memory used by open tabs: conversations, and pending events."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import gradio as gr

from gemma_playground.conversation import Conversation

TAB_TIMEOUT_S: Final = 60
"""A tab that has queued an event opens its event stream within this time, or is gone."""


class TabRegistry:
    """The open tabs, by their Gradio session hash.

    Args:
        demo: Gradio's application, which stores their state.
        max_bytes: limit of all conversations together.
        clock: monotonic time, seconds.
    """

    def __init__(self, demo: gr.Blocks, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.demo, self._max_bytes, self._clock = demo, max_bytes, clock
        self._joined: dict[str, float] = {}
        self._listening: Counter[str] = Counter()

    def has_room(self, size: int) -> bool:
        """Whether a conversation of ``size`` bytes fits into the limit."""
        sessions = list(self.demo.state_holder.session_data.values())
        values = [value for session in sessions for value in list(session.state_data.values())]
        held = sum(value.size for value in values if isinstance(value, Conversation))
        return held + size <= self._max_bytes

    def joined(self, tab: str) -> None:
        """Records that the tab has queued an event."""
        self._joined[tab] = self._clock()

    @contextmanager
    def listening(self, tab: str) -> Iterator[None]:
        """While the tab's event stream is open."""
        self._listening[tab] += 1
        try:
            yield
        finally:
            self._listening[tab] -= 1
            self._listening += Counter()  # removes zero counts

    async def sweep(self) -> None:
        """Cancels the events of tabs that are gone, and drops their messages."""
        queue = self.demo._queue  # noqa: SLF001 - it has no other name
        long_ago = self._clock() - TAB_TIMEOUT_S
        for tab in [tab for tab, at in self._joined.items() if at < long_ago and not self._listening[tab]]:
            del self._joined[tab]
            await queue.clean_events(session_hash=tab)
            queue.pending_messages_per_session.pop(tab, None)
            queue.pending_event_ids_session.pop(tab, None)
        for paths in self.demo.temp_file_sets:  # the file store deletes them, not Gradio
            paths.clear()
