"""The handlers of the page's events: they send requests and change the conversation."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import Any, Final

import gradio as gr

from gemma_playground import settings_panel
from gemma_playground.api_client import ApiClient
from gemma_playground.conversation import Conversation, StoreFile, to_chatbot
from gemma_playground.file_store import FileStore
from gemma_playground.sessions import session_of_tab
from gemma_playground.templates import HTML

EXAMPLES: Final = Path(__file__).parent / "examples"
UNCHANGED: Final = [gr.skip() for _ in range(6)]  # one side's chat and inspector
Outputs = tuple[Any, ...]  # a value for each component that the handler's event names, in that order
EVENT_ACTIONS: Final[dict[str, Callable[[Conversation, Any, gr.EventData, StoreFile], None]]] = {
    "submit": lambda conversation, message, *_: conversation.add_user_message(message),
    "retry": lambda conversation, _, __, store: conversation.add_user_message(
        conversation.pop_user_message(store)
    ),
    "edit": lambda conversation, _, event, store: conversation.add_user_message(
        {**conversation.pop_user_message(store, event.index + 1), "text": event.value}
    ),
    "example_select": lambda conversation, _, event, __: conversation.add_user_message(
        examples()[event.index]
    ),
}
"""The events that send a request, and how each of them changes the conversation."""


def examples() -> list[dict[str, Any]]:
    """Example messages; their files are part of the package."""
    found = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))
    return [{**each, "files": [str(EXAMPLES / file) for file in each["files"]]} for each in found]


def file_storer(store: FileStore, request: gr.Request) -> StoreFile:
    """A function that stores files for the session of an event."""
    return partial(store.add, session_of_tab(request.session_hash))


def request_handler(
    client: ApiClient, store: FileStore, name: str
) -> Callable[..., AsyncGenerator[Outputs, None]]:
    """The handler of an event that sends a request for each side, concurrently."""

    async def send(
        event: gr.EventData, request: gr.Request, message: Any, *given: Any
    ) -> AsyncGenerator[Outputs, None]:
        wide, store_file = 1 + len(settings_panel.FIELDS), file_storer(store, request)
        sides = [given[at : at + wide] for at in range(0, len(given), wide)]
        chat_views = [
            _apply_event(conversation, name, message, event, store_file) for conversation, *_ in sides
        ]
        fresh = (part for chat in chat_views for part in (chat, *UNCHANGED[1:]))
        yield busy_box(busy=True, **({"value": None} if name == "submit" else {})), *fresh
        async with AsyncExitStack() as ending:
            responses = [
                await ending.enter_async_context(aclosing(stream_response(client, chat, *side)))
                for chat, side in zip(chat_views, sides, strict=True)
            ]
            while any(steps := await asyncio.gather(*(anext(each, None) for each in responses))):
                yield gr.skip(), *(part for step in steps for part in step or UNCHANGED)

    return send


def _apply_event(
    conversation: Conversation, name: str, message: Any, event: gr.EventData, store: StoreFile
) -> list[Any]:
    """Applies an event to the conversation, unless it fails; returns the chatbot's messages."""
    before = list(conversation.messages), conversation.size
    try:
        EVENT_ACTIONS[name](conversation, message, event, store)
        return conversation.to_chatbot(store)
    except (AttributeError, LookupError, TypeError) as error:  # the event refers to no message of the chat
        conversation.messages, conversation.size = before
        raise gr.Error(
            "This message cannot be sent again. Reload the page.", print_exception=False
        ) from error
    except gr.Error:
        conversation.messages, conversation.size = before
        raise


async def stream_response(
    client: ApiClient, chat: list[Any], conversation: Conversation, *values: Any
) -> AsyncGenerator[Outputs, None]:
    """Yields one side's chatbot messages with the growing response, and its inspector.

    Args:
        client: of the server.
        chat: the chatbot's messages so far.
        conversation: the response is added to it.
        values: of the settings panel.
    """
    if conversation.pending_tool_call():  # another tool result must be entered first
        return
    try:
        sent = settings_panel.build_request(before := conversation.messages, values)
    except ValueError as error:
        yield [*chat, *_to_chatbot([], str(error))], *UNCHANGED[1:]
        return
    if not sent["model"]:
        await client.refresh()
        sent["model"] = next(iter(client.models), "")
    recording = conversation.recording_to_transcribe()
    if recording is None:
        yield *UNCHANGED[:3], *settings_panel.code_snippets(sent, client.base_url)
    responses = client.transcribe(sent["model"], *recording) if recording else client.stream(sent)
    async with aclosing(responses) as growing:
        async for found in growing:
            conversation.messages = [*before, *found.messages]
            messages = _to_chatbot(found.messages, found.error)
            yield [*chat, *messages], HTML.facts(found), HTML.tokens(found), *UNCHANGED[3:]


def _to_chatbot(messages: list[Any], error: str) -> list[Any]:
    """The chatbot's messages of a response, which has no files."""
    return to_chatbot(messages, lambda *_: "", error)


def busy_box(busy: bool, **more: Any) -> gr.MultimodalTextbox:
    """An update of the text box: while a response is received, it can only be stopped."""
    return gr.MultimodalTextbox(interactive=not busy, submit_btn=not busy, stop_btn=busy, **more)


def open_conversation(store: StoreFile, kept: Any) -> Outputs:
    """Opens a stored or new conversation: returns it, its chatbot messages and its settings."""
    conversation, settings = Conversation.from_stored(kept), kept.get("settings")
    values = settings_panel.panel_values(settings) if settings else [gr.skip() for _ in settings_panel.FIELDS]
    return conversation, conversation.to_chatbot(store), *values


def to_storage(conversation: Conversation, *values: Any) -> dict[str, Any]:
    """The conversation as it is stored and exported: messages and settings, without the API key."""
    return {
        "id": conversation.id,
        "settings": settings_panel.non_empty(values),
        "messages": conversation.messages,
    }
