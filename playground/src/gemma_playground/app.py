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
from gemma_playground.conversation import PICTURES, SOUNDS, Conversation

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
CHANGES: Final[dict[str, Callable[[Conversation, Any, gr.EventData], None]]] = {
    "submit": lambda talk, message, _: talk.say(message),
    "retry": lambda talk, *_: talk.say(talk.cut()),
    "edit": lambda talk, _, event: talk.say({**talk.cut(event.index + 1), "text": event.value}),
    "example_select": lambda talk, _, event: talk.say(examples()[event.index]),
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
    file_types=[f".{kind}" for kind in (*PICTURES, *SOUNDS)],
    sources=["upload", "microphone"],
    max_plain_text_length=10**6,
    elem_classes="message-box",
)


def asking(client: Client, name: str) -> Callable[..., AsyncGenerator[Outputs, None]]:
    """The handler of an event after which the models of all sides are asked, at once."""

    async def ask(event: gr.EventData, message: Any, *given: Any) -> AsyncGenerator[Outputs, None]:
        wide = 1 + len(panel.NAMES)
        sides = [given[at : at + wide] for at in range(0, len(given), wide)]
        for talk, *_ in sides:
            CHANGES[name](talk, message, event)
        shown = (part for talk, *_ in sides for part in (talk.shown(), *SAME[1:]))
        yield _box(busy=True, **({"value": None} if name == "submit" else {})), *shown
        async with AsyncExitStack() as ending:
            answers = [await ending.enter_async_context(aclosing(answer(client, *side))) for side in sides]
            while any(steps := await asyncio.gather(*(anext(each, None) for each in answers))):
                yield gr.skip(), *(part for step in steps for part in step or SAME)

    return ask


async def answer(client: Client, talk: Conversation, *values: Any) -> AsyncGenerator[Outputs, None]:
    """One side's chat with the growing answer, and its inspector."""
    if talk.waiting():  # for what another called function gave back
        return
    try:
        sent = panel.request(asked := talk.messages, values)
    except ValueError as error:
        yield talk.shown(str(error)), *SAME[1:]
        return
    if not sent["model"]:
        await client.look()
        sent["model"] = next(iter(client.models), "")
    yield *SAME[:3], *panel.snippets(sent, client.base_url)
    async with aclosing(client.ask(sent)) as growing:
        async for found in growing:
            talk.messages = [*asked, *found.messages]
            yield talk.shown(found.error), HTML.facts(found), HTML.tokens(found), *SAME[3:]


def _box(busy: bool, **more: Any) -> gr.MultimodalTextbox:
    return gr.MultimodalTextbox(interactive=not busy, submit_btn=not busy, stop_btn=busy, **more)


def opened(kept: Any) -> Outputs:
    """A conversation of the browser, new or kept: it, its chat, its settings where it has some."""
    talk, settings = Conversation.of(kept), kept.get("settings")
    return talk, talk.shown(), *(panel.values(settings) if settings else (gr.skip() for _ in panel.NAMES))


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
            shown = chatbot(label="Chat", show_label=False, elem_id="chat", **more)
            box = message_box(elem_id="message")
            with gr.Accordion("Inspector"):
                inspected = inspector("Request")
            with gr.Accordion("Camera", open=False):
                camera = gr.Image(sources=["webcam"], type="filepath", label="Camera", height=240)
        with gr.Column(scale=1, min_width=300, elem_id="settings"):
            settings = panel.parts()
    camera.input(_attached, [camera, box], [camera, box])
    return box, ([gr.State(Conversation()), *settings], [shown, *inspected])


def _attached(file: str | None, message: dict[str, Any]) -> tuple[None, dict[str, Any]]:
    return None, {**message, "files": [each for each in (*message["files"], file) if each]}


def side_tab(client: Client) -> list[Side]:
    """One question, two answers at once, each with settings of its own."""
    sides: list[Side] = []
    with gr.Row():
        for name in ("Left", "Right"):
            with gr.Column(min_width=320):
                shown = chatbot(label=name, placeholder="One question, two answers", elem_id=name.lower())
                inspected = inspector(f"{name}: request", f"{name.lower()}-")
                with gr.Accordion(f"{name}: settings", open=False):
                    sides.append(([gr.State(Conversation()), *panel.parts()], [shown, *inspected]))
    box = message_box(elem_id="both")
    asked = wire(client, box, sides, [box.submit])
    for inputs, (shown, *_) in sides:
        shown.clear(Conversation, None, inputs[0], cancels=asked, **SOON)
    return sides


def wire(client: Client, box: gr.MultimodalTextbox, sides: list[Side], events: list[Any]) -> list[Any]:
    """The events ask the models of all sides, the stop button stops them, and the text box waits for them."""
    inputs, outputs = ([box, *(part for side in sides for part in side[way])] for way in (0, 1))
    asked = [event(asking(client, event.event_name), inputs, outputs, **TOLD) for event in events]
    box.stop(None, cancels=asked)
    for each in asked:
        each.then(lambda: _box(busy=False), None, box, **SOON)
    return asked


def sidebar(client: Client, demo: gr.Blocks, box: gr.MultimodalTextbox, chat: Side) -> None:
    """The conversations that this browser keeps, and what can be done with them and the one that is open."""
    with gr.Sidebar(label="Conversations", width=260, open=False) as bar:
        new = gr.Button("New chat", variant="primary")
        stored = gr.Radio([], label="Conversations", elem_id="conversations")
        names = ("Delete conversation", "Export", "Import", "Share settings")
        delete, export, load, share = (gr.Button(name, size="sm") for name in names)
    carrier = gr.JSON(visible=False)  # between Python and the browser's storage
    (talk, *settings), (shown, *_) = chat
    asked = wire(client, box, [chat], [box.submit, shown.retry, shown.edit, shown.example_select])
    undone = shown.undo(lambda talk: (talk.cut(), talk.shown()), talk, [box, shown], cancels=asked, **SOON)
    for event, js in (
        (demo.load, "start()"),
        (stored.input, "open(id)"),
        (new.click, "forget(false)"),
        (delete.click, "forget(true)"),
        (shown.clear, "forget(true)"),
        (load.click, "pick()"),
    ):
        found = event(None, stored, [carrier, stored], js=f"(id) => playground.{js}", **SOON)
        imported = found.then(opened, carrier, [talk, shown, *settings], cancels=asked, **TOLD)
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


def build(client: Client) -> gr.Blocks:
    """The whole app; nothing is asked of the server before somebody opens the page."""

    async def look() -> Outputs:
        await client.look()
        return HTML.heading(client), HTML.lines(client.facts), client.plot()

    def models(*chosen: str | None) -> list[gr.Dropdown]:
        first = next(iter(client.models), None)
        return [gr.Dropdown(client.models, value=each or first) for each in chosen]

    with gr.Blocks(
        title="Gemma 3n playground", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True
    ) as app:
        demo: gr.Blocks = app  # Gradio says that it enters as anything.
        heading = gr.HTML(HTML.heading(client), elem_id="heading")
        with gr.Tab("Chat"):
            box, chat = chat_tab()
        with gr.Tab("Side by side"):
            sides = side_tab(client)
        with gr.Tab("Status"):
            lines = gr.HTML(HTML.lines(client.facts), elem_id="health")
            plot = gr.LinePlot(client.plot(), "seconds", "tokens/s", x_lim=[-120, 0], elem_id="speed")
        sidebar(client, demo, box, chat)
        gr.on([demo.load, gr.Timer(2).tick], look, None, [heading, lines, plot], **SOON)
        choices = [inputs[1] for inputs, _ in (chat, *sides)]
        heading.change(models, choices, choices, **SOON)
    demo.max_threads = 256  # Events at a time; each open answer is one.
    demo.queue(default_concurrency_limit=None)
    return demo
