"""The page: Gradio components, and which handler each of their events calls."""

from functools import partial
from typing import Any, Final

import gradio as gr

from gemma_playground import settings_panel
from gemma_playground.api_client import ApiClient, ChatResponse
from gemma_playground.conversation import Conversation
from gemma_playground.event_handlers import (
    Outputs,
    busy_box,
    examples,
    file_storer,
    open_conversation,
    request_handler,
    to_storage,
)
from gemma_playground.file_store import MEDIA_TYPES, FileStore
from gemma_playground.templates import HTML

WELCOME: Final = """## Drop in an image and ask about it
Add an image or an audio file with the paper clip, or drop it below, and press Enter. Or try an example:"""
QUEUED: Final[dict[str, Any]] = {"show_progress": "hidden"}
"""Options of events that take long or show messages to the user, which requires the queue."""
UNQUEUED: Final[dict[str, Any]] = {"queue": False, **QUEUED}
Side = tuple[list[Any], list[Any]]
"""One chat: the inputs (conversation, settings panel) and the outputs (chatbot, inspector)."""

chatbot = partial(
    gr.Chatbot, allow_tags=False, buttons=["copy", "copy_all"], height="max(18rem, 100dvh - 25rem)"
)
message_box = partial(
    gr.MultimodalTextbox,
    label="Message",
    show_label=False,
    placeholder="Ask about an image, audio, or anything else",
    file_count="multiple",
    file_types=[f".{kind}" for kind in MEDIA_TYPES],
    sources=["upload", "microphone"],
    max_plain_text_length=10**6,
    elem_classes="message-box",
)


def inspector(request: str, prefix: str = "") -> list[settings_panel.Component]:
    """Components that show the metrics of a response and its request."""
    facts = gr.HTML(HTML.facts(ChatResponse()), elem_id=f"{prefix}facts")
    tokens = gr.HTML(elem_id=f"{prefix}tokens")
    code: dict[str, Any] = {"lines": 6, "max_lines": 16, "buttons": ["copy"], "elem_classes": "code"}
    labels = [f"The request with {language}" for language in settings_panel.SNIPPETS]
    with gr.Accordion(request, open=False):
        # Gradio uses the label for the copy button, and screen readers use the placeholder.
        boxes = [gr.Textbox(label=each, placeholder=each, interactive=False, **code) for each in labels]
    return [facts, tokens, *boxes]


def chat_tab() -> tuple[gr.MultimodalTextbox, Side]:
    """The chat with its inspector, and the settings next to it (on a phone: below it)."""
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            more: dict[str, Any] = {"placeholder": WELCOME, "examples": examples(), "editable": "user"}
            view = chatbot(label="Chat", show_label=False, elem_id="chat", **more)
            box = message_box(elem_id="message")
            with gr.Accordion("Inspector"):
                inspected = inspector("Request")
            with gr.Accordion("Camera", open=False):
                camera = gr.Image(sources=["webcam"], type="filepath", label="Camera", height=240)
        with gr.Column(scale=1, min_width=300, elem_id="settings"):
            settings = settings_panel.build_panel()
    # Without preprocessing: Gradio would decode an image of any size.
    camera.input(_attach, [camera, box], [camera, box], preprocess=False)
    return box, ([gr.State(Conversation()), *settings], [view, *inspected])


def _attach(file: Any, message: Any) -> tuple[None, dict[str, Any]]:
    text, files = (message["text"], message["files"]) if message else ("", [])
    return None, {"text": text, "files": [each for each in (*files, file) if each]}


def side_by_side_tab(client: ApiClient, store: FileStore) -> list[Side]:
    """One message, two responses, each with its own settings."""
    sides: list[Side] = []
    with gr.Row():
        for name in ("Left", "Right"):
            with gr.Column(min_width=320):
                view = chatbot(label=name, placeholder="One message, two responses", elem_id=name.lower())
                inspected = inspector(f"{name}: request", f"{name.lower()}-")
                with gr.Accordion(f"{name}: settings", open=False):
                    sides.append(
                        ([gr.State(Conversation()), *settings_panel.build_panel()], [view, *inspected])
                    )
    box = message_box(elem_id="both")
    events = connect_events(client, store, box, sides, [box.submit])
    for inputs, (view, *_) in sides:
        view.clear(Conversation, None, inputs[0], cancels=events, **UNQUEUED)
    return sides


def connect_events(
    client: ApiClient, store: FileStore, box: gr.MultimodalTextbox, sides: list[Side], events: list[Any]
) -> list[Any]:
    """Connects events to the request handler, the stop button and the state of the text box."""
    inputs, outputs = ([box, *(part for side in sides for part in side[way])] for way in (0, 1))
    running = [
        event(request_handler(client, store, event.event_name), inputs, outputs, **QUEUED) for event in events
    ]
    box.stop(None, cancels=running)
    for each in running:
        each.then(lambda: busy_box(busy=False), None, box, **UNQUEUED)
    return running


def sidebar(
    client: ApiClient, store: FileStore, demo: gr.Blocks, box: gr.MultimodalTextbox, chat: Side
) -> None:
    """The list of the browser's conversations, and the buttons that act on them."""

    def undo(conversation: Conversation, request: gr.Request) -> tuple[Any, list[Any]]:
        return conversation.pop_user_message(
            store_file := file_storer(store, request)
        ), conversation.to_chatbot(store_file)

    def reopen(found: Any, request: gr.Request) -> Outputs:
        return open_conversation(file_storer(store, request), found)

    with gr.Sidebar(label="Conversations", width=260, open=False) as bar:
        new = gr.Button("New chat", variant="primary")
        stored = gr.Radio([], label="Conversations", elem_id="conversations")
        names = ("Delete conversation", "Export", "Import", "Share settings")
        delete, export, load, share = (gr.Button(name, size="sm") for name in names)
    carrier = gr.JSON(visible=False)  # carries a conversation between Python and the browser's storage
    (conversation, *settings), (view, *_) = chat
    events = connect_events(
        client, store, box, [chat], [box.submit, view.retry, view.edit, view.example_select]
    )
    undone = view.undo(undo, conversation, [box, view], cancels=events, **UNQUEUED)
    for event, js in (
        (demo.load, "openPage()"),
        (stored.input, "open(id)"),
        (new.click, "newChat()"),
        (delete.click, "deleteChat()"),
        (view.clear, "deleteChat()"),
        (load.click, "importFile()"),
    ):
        found = event(None, stored, [carrier, stored], js=f"(id) => playground.{js}", **UNQUEUED)
        imported = found.then(reopen, carrier, [conversation, view, *settings], cancels=events, **QUEUED)
    saves = [(each.then, "save(kept)") for each in (*events, undone, imported)]
    for event, js in (*saves, (export.click, "exportFile(kept)"), (share.click, "share(kept)")):
        event(to_storage, [conversation, *settings], carrier, **UNQUEUED).then(
            None, carrier, stored, js=f"(kept) => (playground.{js}, playground.list())", **UNQUEUED
        )
    share.click(lambda: gr.Info("The link is in the address bar and on the clipboard.", 4), **QUEUED)
    demo.load(None, None, bar, js="() => ({ __type__: 'update', open: innerWidth > 1000 })", **UNQUEUED)


def build(client: ApiClient, store: FileStore, max_queue: int) -> gr.Blocks:
    """The complete page; no request is sent before a browser opens it."""

    async def refresh() -> Outputs:
        await client.refresh()
        return HTML.heading(client), HTML.lines(client.facts), client.plot()

    def models(*chosen: str | None) -> list[gr.Dropdown]:
        first = next(iter(client.models), None)
        return [gr.Dropdown(client.models, value=each or first) for each in chosen]

    with gr.Blocks(title="Gemma 3n playground", analytics_enabled=False, fill_width=True) as app:
        demo: gr.Blocks = app  # Gradio's annotation of __enter__ is too general.
        heading = gr.HTML(HTML.heading(client), elem_id="heading")
        with gr.Tab("Chat"):
            box, chat = chat_tab()
        with gr.Tab("Side by side"):
            sides = side_by_side_tab(client, store)
        with gr.Tab("Status"):
            lines = gr.HTML(HTML.lines(client.facts), elem_id="health")
            plot = gr.LinePlot(client.plot(), "seconds", "tokens/s", x_lim=[-120, 0], elem_id="speed")
        sidebar(client, store, demo, box, chat)
        gr.on([demo.load, gr.Timer(2).tick], refresh, None, [heading, lines, plot], **UNQUEUED)
        choices = [inputs[1] for inputs, _ in (chat, *sides)]
        heading.change(models, choices, choices, **UNQUEUED)
    demo.max_threads = 256  # concurrent events; each open response is one
    demo.queue(default_concurrency_limit=None, max_size=max_queue, api_open=False)
    return demo
