"""What is held in memory for open pages: conversations, and events that somebody waits for."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import gradio as gr

from gemma_playground.conversation import Conversation

LOST_SECONDS: Final = 60
"""A page listens as soon as it has asked for something."""


class Tabs:
    """The tabs, by Gradio's names of them.

    Args:
        demo: Gradio's application, which holds them.
        max_bytes: of all conversations.
        clock: seconds.
    """

    def __init__(self, demo: gr.Blocks, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.demo, self._max_bytes, self._clock = demo, max_bytes, clock
        self._joined: dict[str, float] = {}
        self._listening: Counter[str] = Counter()

    def has_room(self, size: int) -> bool:
        """Whether a conversation of so many bytes may be added to those that are held."""
        sessions = list(self.demo.state_holder.session_data.values())
        values = [value for session in sessions for value in list(session.state_data.values())]
        held = sum(value.size for value in values if isinstance(value, Conversation))
        return held + size <= self._max_bytes

    def joined(self, tab: str) -> None:
        """The tab has asked for something, and will listen."""
        self._joined[tab] = self._clock()

    @contextmanager
    def listening(self, tab: str) -> Iterator[None]:
        """The tab listens."""
        self._listening[tab] += 1
        try:
            yield
        finally:
            self._listening[tab] -= 1
            self._listening += Counter()  # without those that are zero

    async def sweep(self) -> None:
        """Ends what nobody listens to, and drops what was said to nobody."""
        queue = self.demo._queue  # noqa: SLF001 - it has no other name
        long_ago = self._clock() - LOST_SECONDS
        for tab in [tab for tab, at in self._joined.items() if at < long_ago and not self._listening[tab]]:
            del self._joined[tab]
            await queue.clean_events(session_hash=tab)
            queue.pending_messages_per_session.pop(tab, None)
            queue.pending_event_ids_session.pop(tab, None)
        for paths in self.demo.temp_file_sets:  # Gradio would delete these; the store does.
            paths.clear()
