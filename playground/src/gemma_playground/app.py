"""The page: Gradio's parts, and what happens when one of them is used."""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import Any, Final

import gradio as gr
from jinja2 import ChainableUndefined, Environment

from gemma_playground import panel
from gemma_playground.client import Answer, Client
from gemma_playground.conversation import Conversation, Store, shown
from gemma_playground.files import MEDIA_TYPES, FileStore
from gemma_playground.sessions import session_of_tab

HERE: Final = Path(__file__).parent
TEMPLATES: Final = Environment(autoescape=True, undefined=ChainableUndefined)
TEMPLATES.globals["exp"] = lambda logprob: math.exp(min(0, logprob))
HTML: Final[Any] = TEMPLATES.from_string((HERE / "page.html").read_text(encoding="utf-8")).module
"""What Gradio has no part for, by the names of the page's macros."""
WELCOME: Final = """## Drop a picture in and ask about it
Add a picture or a sound with the paper clip, or drop it below, and press Enter. Or try an example:"""
TOLD: Final[dict[str, Any]] = {"show_progress": "hidden"}
"""Events that take time, or may tell the user something, which only the queue can."""
SOON: Final[dict[str, Any]] = {"queue": False, **TOLD}
SAME: Final = [gr.skip() for _ in range(6)]  # one side's chat and inspector, as they are
Outputs = tuple[Any, ...]  # a value for each component that the handler's event names, in that order
Side = tuple[list[Any], list[Any]]
"""One chat: its conversation and its panel, which go in; what is shown, and its inspector, which come out."""
CHANGES: Final[dict[str, Callable[[Conversation, Any, gr.EventData, Store], None]]] = {
    "submit": lambda talk, message, *_: talk.say(message),
    "retry": lambda talk, _, __, store: talk.say(talk.cut(store)),
    "edit": lambda talk, _, event, store: talk.say({**talk.cut(store, event.index + 1), "text": event.value}),
    "example_select": lambda talk, _, event, __: talk.say(examples()[event.index]),
}
"""The events after which the model is asked, and what they make of the conversation."""

chatbot = partial(
    gr.Chatbot, allow_tags=False, buttons=["copy", "copy_all"], height="max(18rem, 100dvh - 25rem)"
)
message_box = partial(
    gr.MultimodalTextbox,
    label="Message",
    show_label=False,
    placeholder="Ask about a picture, a sound, or anything",
    file_count="multiple",
    file_types=[f".{kind}" for kind in MEDIA_TYPES],
    sources=["upload", "microphone"],
    max_plain_text_length=10**6,
    elem_classes="message-box",
)


def storing(store: FileStore, request: gr.Request) -> Store:
    """Stores files for the session that an event is of."""
    return partial(store.add, session_of_tab(request.session_hash))


def asking(client: Client, store: FileStore, name: str) -> Callable[..., AsyncGenerator[Outputs, None]]:
    """The handler of an event after which the models of all sides are asked, at once."""

    async def ask(
        event: gr.EventData, request: gr.Request, message: Any, *given: Any
    ) -> AsyncGenerator[Outputs, None]:
        wide, keep = 1 + len(panel.NAMES), storing(store, request)
        sides = [given[at : at + wide] for at in range(0, len(given), wide)]
        chats = [_changed(talk, name, message, event, keep) for talk, *_ in sides]
        fresh = (part for chat in chats for part in (chat, *SAME[1:]))
        yield _box(busy=True, **({"value": None} if name == "submit" else {})), *fresh
        async with AsyncExitStack() as ending:
            answers = [
                await ending.enter_async_context(aclosing(answer(client, chat, *side)))
                for chat, side in zip(chats, sides, strict=True)
            ]
            while any(steps := await asyncio.gather(*(anext(each, None) for each in answers))):
                yield gr.skip(), *(part for step in steps for part in step or SAME)

    return ask


def _changed(talk: Conversation, name: str, message: Any, event: gr.EventData, store: Store) -> list[Any]:
    """What the chat shows after an event; the conversation stays as it was when something is refused."""
    before = list(talk.messages), talk.size
    try:
        CHANGES[name](talk, message, event, store)
        return talk.shown(store)
    except (AttributeError, LookupError, TypeError) as error:  # The event names no message of the chat.
        talk.messages, talk.size = before
        raise gr.Error("This cannot be asked again. Load the page again.", print_exception=False) from error
    except gr.Error:
        talk.messages, talk.size = before
        raise


async def answer(
    client: Client, chat: list[Any], talk: Conversation, *values: Any
) -> AsyncGenerator[Outputs, None]:
    """One side's chat with the growing answer, and its inspector.

    Args:
        client: of the server.
        chat: what is shown of the conversation so far.
        talk: the conversation, which grows.
        values: the panel's.
    """
    if talk.waiting():  # for what another called function gave back
        return
    try:
        sent = panel.request(asked := talk.messages, values)
    except ValueError as error:
        yield [*chat, *_told([], str(error))], *SAME[1:]
        return
    if not sent["model"]:
        await client.look()
        sent["model"] = next(iter(client.models), "")
    yield *SAME[:3], *panel.snippets(sent, client.base_url)
    async with aclosing(client.ask(sent)) as growing:
        async for found in growing:
            talk.messages = [*asked, *found.messages]
            told = _told(found.messages, found.error)
            yield [*chat, *told], HTML.facts(found), HTML.tokens(found), *SAME[3:]


def _told(messages: list[Any], error: str) -> list[Any]:
    """What a model says; there are no files in it."""
    return shown(messages, lambda *_: "", error)


def _box(busy: bool, **more: Any) -> gr.MultimodalTextbox:
    return gr.MultimodalTextbox(interactive=not busy, submit_btn=not busy, stop_btn=busy, **more)


def opened(store: Store, kept: Any) -> Outputs:
    """A conversation of the browser, new or kept: it, its chat, its settings where it has some."""
    talk, settings = Conversation.of(kept), kept.get("settings")
    told = panel.values(settings) if settings else [gr.skip() for _ in panel.NAMES]
    return talk, talk.shown(store), *told


def inspector(request: str, prefix: str = "") -> list[panel.Part]:
    """What is known of an answer, and the request that it answers."""
    facts = gr.HTML(HTML.facts(Answer()), elem_id=f"{prefix}facts")
    tokens = gr.HTML(elem_id=f"{prefix}tokens")
    code: dict[str, Any] = {"lines": 6, "max_lines": 16, "buttons": ["copy"], "elem_classes": "code"}
    labels = [f"The request with {language}" for language in panel.CODE]
    with gr.Accordion(request, open=False):
        # Gradio gives the label to the button, and what reads the page aloud takes the placeholder instead.
        boxes = [gr.Textbox(label=each, placeholder=each, interactive=False, **code) for each in labels]
    return [facts, tokens, *boxes]


def examples() -> list[dict[str, Any]]:
    """Questions to begin with; their files are ours, whatever a browser says of them."""
    folder = HERE / "examples"
    found = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
    return [{**each, "files": [str(folder / file) for file in each["files"]]} for each in found]


def chat_tab() -> tuple[gr.MultimodalTextbox, Side]:
    """The chat, and beside it (below it, on a phone) settings and inspector."""
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
            settings = panel.parts()
    # Unprocessed: Gradio would decode the picture, whatever its size.
    camera.input(_attached, [camera, box], [camera, box], preprocess=False)
    return box, ([gr.State(Conversation()), *settings], [view, *inspected])


def _attached(file: Any, message: Any) -> tuple[None, dict[str, Any]]:
    text, files = (message["text"], message["files"]) if message else ("", [])
    return None, {"text": text, "files": [each for each in (*files, file) if each]}


def side_tab(client: Client, store: FileStore) -> list[Side]:
    """One question, two answers at once, each with settings of its own."""
    sides: list[Side] = []
    with gr.Row():
        for name in ("Left", "Right"):
            with gr.Column(min_width=320):
                view = chatbot(label=name, placeholder="One question, two answers", elem_id=name.lower())
                inspected = inspector(f"{name}: request", f"{name.lower()}-")
                with gr.Accordion(f"{name}: settings", open=False):
                    sides.append(([gr.State(Conversation()), *panel.parts()], [view, *inspected]))
    box = message_box(elem_id="both")
    asked = wire(client, store, box, sides, [box.submit])
    for inputs, (view, *_) in sides:
        view.clear(Conversation, None, inputs[0], cancels=asked, **SOON)
    return sides


def wire(
    client: Client, store: FileStore, box: gr.MultimodalTextbox, sides: list[Side], events: list[Any]
) -> list[Any]:
    """The events ask the models of all sides, the stop button stops them, and the text box waits for them."""
    inputs, outputs = ([box, *(part for side in sides for part in side[way])] for way in (0, 1))
    asked = [event(asking(client, store, event.event_name), inputs, outputs, **TOLD) for event in events]
    box.stop(None, cancels=asked)
    for each in asked:
        each.then(lambda: _box(busy=False), None, box, **SOON)
    return asked


def sidebar(client: Client, store: FileStore, demo: gr.Blocks, box: gr.MultimodalTextbox, chat: Side) -> None:
    """The conversations that this browser keeps, and what can be done with them and the one that is open."""

    def undo(talk: Conversation, request: gr.Request) -> tuple[Any, list[Any]]:
        return talk.cut(keep := storing(store, request)), talk.shown(keep)

    def reopen(found: Any, request: gr.Request) -> Outputs:
        return opened(storing(store, request), found)

    with gr.Sidebar(label="Conversations", width=260, open=False) as bar:
        new = gr.Button("New chat", variant="primary")
        stored = gr.Radio([], label="Conversations", elem_id="conversations")
        names = ("Delete conversation", "Export", "Import", "Share settings")
        delete, export, load, share = (gr.Button(name, size="sm") for name in names)
    carrier = gr.JSON(visible=False)  # between Python and the browser's storage
    (talk, *settings), (view, *_) = chat
    asked = wire(client, store, box, [chat], [box.submit, view.retry, view.edit, view.example_select])
    undone = view.undo(undo, talk, [box, view], cancels=asked, **SOON)
    for event, js in (
        (demo.load, "start()"),
        (stored.input, "open(id)"),
        (new.click, "forget(false)"),
        (delete.click, "forget(true)"),
        (view.clear, "forget(true)"),
        (load.click, "pick()"),
    ):
        found = event(None, stored, [carrier, stored], js=f"(id) => playground.{js}", **SOON)
        imported = found.then(reopen, carrier, [talk, view, *settings], cancels=asked, **TOLD)
    saves = [(each.then, "save(kept)") for each in (*asked, undone, imported)]
    for event, js in (*saves, (export.click, "download(kept)"), (share.click, "share(kept)")):
        event(kept, [talk, *settings], carrier, **SOON).then(
            None, carrier, stored, js=f"(kept) => (playground.{js}, playground.listed())", **SOON
        )
    share.click(lambda: gr.Info("The link is in the address bar and on the clipboard.", 4), **TOLD)
    demo.load(None, None, bar, js="() => ({ __type__: 'update', open: innerWidth > 1000 })", **SOON)


def kept(talk: Conversation, *values: Any) -> dict[str, Any]:
    """The conversation as it is stored and exported: messages and settings, never a key."""
    return {"id": talk.id, "settings": panel.touched(values), "messages": talk.messages}


def build(client: Client, store: FileStore, max_queue: int) -> gr.Blocks:
    """The whole app; nothing is asked of the server before somebody opens the page."""

    async def look() -> Outputs:
        await client.look()
        return HTML.heading(client), HTML.lines(client.facts), client.plot()

    def models(*chosen: str | None) -> list[gr.Dropdown]:
        first = next(iter(client.models), None)
        return [gr.Dropdown(client.models, value=each or first) for each in chosen]

    with gr.Blocks(title="Gemma 3n playground", analytics_enabled=False, fill_width=True) as app:
        demo: gr.Blocks = app  # Gradio says that it enters as anything.
        heading = gr.HTML(HTML.heading(client), elem_id="heading")
        with gr.Tab("Chat"):
            box, chat = chat_tab()
        with gr.Tab("Side by side"):
            sides = side_tab(client, store)
        with gr.Tab("Status"):
            lines = gr.HTML(HTML.lines(client.facts), elem_id="health")
            plot = gr.LinePlot(client.plot(), "seconds", "tokens/s", x_lim=[-120, 0], elem_id="speed")
        sidebar(client, store, demo, box, chat)
        gr.on([demo.load, gr.Timer(2).tick], look, None, [heading, lines, plot], **SOON)
        choices = [inputs[1] for inputs, _ in (chat, *sides)]
        heading.change(models, choices, choices, **SOON)
    demo.max_threads = 256  # Events at a time; each open answer is one.
    demo.queue(default_concurrency_limit=None, max_size=max_queue, api_open=False)
    return demo
