from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from gemma_playground.conversation import MAX_BYTES, Conversation
from gemma_playground.tab_registry import TAB_TIMEOUT_S, TabRegistry


class Demo:
    """What Gradio holds for two tabs: a conversation of 60 bytes each, and messages that nobody has read."""

    def __init__(self) -> None:
        said = {"messages": [{"role": "user", "content": "x" * 60}]}
        talks = [Conversation.from_stored(said) for _ in range(2)]
        states = {str(at): SimpleNamespace(state_data={1: talk, 2: "other"}) for at, talk in enumerate(talks)}
        self.state_holder = SimpleNamespace(session_data=states)
        self.ended: list[str] = []
        self.temp_file_sets = [{"a"}]
        self._queue = SimpleNamespace(
            pending_messages_per_session={"a": 1, "b": 2},
            pending_event_ids_session={"a": {1}, "b": {2}},
            clean_events=self.clean_events,
        )

    async def clean_events(self, session_hash: str) -> None:
        self.ended.append(session_hash)

    @property
    def waiting(self) -> set[str]:
        return {*self._queue.pending_messages_per_session, *self._queue.pending_event_ids_session}


def test_conversations_are_limited_together() -> None:
    demo: Any = Demo()
    tabs = TabRegistry(demo, 150)
    assert tabs.has_room(30)
    assert not tabs.has_room(31)
    del demo.state_holder.session_data["0"]
    assert tabs.has_room(90)


async def test_events_without_a_listener_are_cancelled() -> None:
    demo: Any = Demo()
    now = [0.0]
    tabs = TabRegistry(demo, 150, lambda: now[0])
    for tab in "ab":
        tabs.joined(tab)
    with tabs.listening("a"):
        now[0] = TAB_TIMEOUT_S
        await tabs.sweep()
        assert demo.ended == []
        now[0] += 1
        await tabs.sweep()
        assert (demo.ended, demo.waiting) == (["b"], {"a"})
    await tabs.sweep()
    assert (demo.ended, demo.waiting) == (["b", "a"], set())
    await tabs.sweep()
    assert demo.ended == ["b", "a"]
    assert demo.temp_file_sets == [set()]


def test_a_conversation_is_limited() -> None:
    talk = Conversation.from_stored({"messages": [{"role": "user", "content": "x" * MAX_BYTES}]})
    assert talk.size == MAX_BYTES
    with pytest.raises(gr.Error, match="may have at most 64 MB"):
        talk.add_user_message({"text": "y", "files": []})
    assert len(talk.messages) == 1
    talk.pop_user_message(lambda *_: "")
    assert talk.size == 0
    talk.add_user_message({"text": "y", "files": []})
    assert talk.size == 1
