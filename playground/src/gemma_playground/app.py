"""The page: Gradio's parts, and which handler answers when one of them is used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gradio as gr

from gemma_playground import request, view
from gemma_playground.conversation import Conversation
from gemma_playground.media import ENDINGS
from gemma_playground.page import BUSY, REST, Page
from gemma_playground.settings import Settings
from gemma_playground.status import State

HERE: Final = Path(__file__).parent
PICTURE: Final = "What do you see in this image?"
EXAMPLES: Final = (
    ("What is in this picture?", PICTURE, "circle.png"),
    ("How many shapes?", "How many shapes are there?", "shapes.png"),
    ("Which colour?", "What colour is the star?", "star.png"),
    ("Listen to this", "What do you hear?", "beeps.wav"),
    ("A story", "Tell me a story", None),
    ("Who are you?", "Who are you?", None),
)
WELCOME: Final = """## Drop a picture in and ask about it
Add a picture or a sound with the paper clip, or drop it below, and press Enter. Or try an example:"""
SOON: Final[dict[str, Any]] = {"queue": False, "show_progress": "hidden"}
"""Events that take no time: past the queue, and without a spinner."""
TOLD: Final[dict[str, Any]] = {"show_progress": "hidden"}
"""Events that may tell the user something, which only the queue can."""
Part = gr.components.Component


def panel() -> list[Part]:
    """A panel of settings, in the order of ``request.PANEL``; what stays empty is the server's to choose."""
    with gr.Accordion("Settings", open=True):
        parts: dict[str, Part] = {
            "model": gr.Dropdown([], label="Model", allow_custom_value=True),
            "system": gr.Textbox(label="System prompt", lines=2, placeholder="You are …"),
        }
        for pair in (
            ("temperature", "top_p"),
            ("max_tokens", "seed"),
            ("frequency_penalty", "presence_penalty"),
        ):
            with gr.Row():
                for name in pair:
                    parts[name] = gr.Textbox(
                        label=request.PANEL[name], placeholder="default", max_lines=1, min_width=110
                    )
        parts["stop"] = gr.Textbox(label="Stop sequences", lines=1, placeholder="one a line")
    with gr.Accordion("Format and tools", open=False):
        parts["response_format"] = gr.Dropdown(list(request.FORMATS), label="Response format")
        parts["json_schema"] = gr.Textbox(label="JSON schema", lines=3, placeholder='{"type": "object", …}')
        parts["tools"] = gr.Textbox(
            label="Tools",
            lines=3,
            placeholder='[{"type": "function", "function": {"name": …, "parameters": …}}]',
        )
        parts["logprobs"] = gr.Checkbox(label="Log probabilities")
    return [parts[name] for name in request.PANEL]


@dataclass(frozen=True)
class Chat:
    """The parts of the chat's tab that handlers talk about."""

    talk: gr.State
    shown: gr.Chatbot
    box: gr.MultimodalTextbox
    call: gr.Group
    call_answer: gr.Textbox
    call_send: gr.Button
    inspector: list[Part]
    panel: list[Part]
    carrier: gr.JSON


def chatbot(label: str, **more: Any) -> gr.Chatbot:
    """A chat that shows Markdown, and no HTML but the harmless."""
    return gr.Chatbot(
        label=label,
        sanitize_html=True,
        allow_tags=False,
        buttons=["copy", "copy_all"],
        height="max(18rem, 100dvh - 25rem)",
        feedback_options=None,
        **more,
    )


def message_box(**more: Any) -> gr.MultimodalTextbox:
    """Where the user writes, drops, pastes and records."""
    return gr.MultimodalTextbox(
        label="Message",
        show_label=False,
        file_count="multiple",
        file_types=ENDINGS,
        max_plain_text_length=10**6,
        sources=["upload", "microphone"],
        placeholder="Ask about a picture, a sound, or anything",
        elem_classes="message-box",
        **more,
    )


def chat_tab() -> Chat:
    """The chat, and beside it (below it, on a phone) settings and inspector."""
    examples = [
        {"display_text": label, "text": text, "files": [str(HERE / "examples" / file)] if file else []}
        for label, text, file in EXAMPLES
    ]
    talk = gr.State(Conversation())
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            shown = chatbot(
                "Chat",
                show_label=False,
                elem_id="chat",
                editable="user",
                placeholder=WELCOME,
                examples=examples,
            )
            with gr.Group(visible=False) as call:
                answer = gr.Textbox(label="Tool answer", lines=2)
                send = gr.Button("Send tool answer", variant="primary")
            box = message_box(elem_id="message")
            with gr.Accordion("Inspector", open=True):
                inspector: list[Part] = [gr.HTML(view.facts(), elem_id="facts"), gr.HTML(elem_id="tokens")]
                for label in ("curl", "Python", "JavaScript"):
                    with gr.Accordion(label, open=False):
                        inspector.append(
                            gr.Textbox(
                                label=f"The request with {label}",
                                lines=6,
                                max_lines=16,
                                interactive=False,
                                buttons=["copy"],
                                elem_classes="code",
                            )
                        )
            with gr.Accordion("Camera", open=False):
                camera = gr.Image(sources=["webcam"], type="filepath", label="Camera", height=240)
        with gr.Column(scale=1, min_width=300, elem_id="settings"):
            settings = panel()
    camera.input(_add_file, [camera, box], [box, camera])
    return Chat(talk, shown, box, call, answer, send, inspector, settings, gr.JSON(visible=False))


def _add_file(file: str | None, message: dict[str, Any]) -> tuple[dict[str, Any], None]:
    return {"text": message["text"], "files": [*message["files"], *([file] if file else [])]}, None


def side_tab(page: Page) -> list[list[Part]]:
    """One question, two answers at once, each with settings of its own."""
    talks, shown, outputs, panels = [], [], [], []
    with gr.Row():
        for name in ("Left", "Right"):
            with gr.Column(min_width=320):
                talks.append(gr.State(Conversation()))
                shown.append(chatbot(name, placeholder="One question, two answers", elem_id=name.lower()))
                outputs += [shown[-1], gr.HTML(view.facts(), elem_id=f"{name.lower()}-facts")]
                with gr.Accordion(f"{name}: settings", open=False):
                    panels.append(panel())
    box = message_box(elem_id="both")
    inputs = [box, *talks, *panels[0], *panels[1]]
    asked = box.submit(page.both, inputs, [box, *outputs], **TOLD)
    asked.then(lambda: gr.MultimodalTextbox(**REST), None, box, **SOON)
    box.stop(None, cancels=asked)
    for talk, chat in zip(talks, shown, strict=True):
        chat.clear(Conversation, None, talk, cancels=asked, **SOON)
    return panels


def status_tab(page: Page, tab: gr.Tab, others: list[gr.Tab]) -> None:
    """How the server is; asked only while this tab is looked at."""
    lines = gr.HTML(view.health(State(), page.settings.base_url), elem_id="health")
    plot = gr.LinePlot(
        page.status.plot(), "seconds", "tokens/s", title="Tokens per second", x_lim=[-120, 0], elem_id="speed"
    )
    timer = gr.Timer(1, active=False)
    timer.tick(page.health, None, [lines, plot], **SOON)
    tab.select(lambda: gr.Timer(active=True), None, timer, **SOON)
    for other in others:
        other.select(lambda: gr.Timer(active=False), None, timer, **SOON)


def sidebar() -> tuple[gr.Sidebar, gr.Radio, dict[str, Any]]:
    """New chat, the conversations that this browser keeps, and what can be done with them."""
    with gr.Sidebar(label="Conversations", width=260, open=False) as bar:
        buttons: dict[str, Any] = {"new": gr.Button("New chat", variant="primary")}
        stored = gr.Radio([], label="Conversations", elem_id="conversations")
        buttons["delete"] = gr.Button("Delete conversation", size="sm")
        buttons["export"] = gr.Button("Export", size="sm")
        buttons["import"] = gr.UploadButton("Import", type="binary", file_types=[".json"], size="sm")
        buttons["share"] = gr.Button("Share settings", size="sm")
    return bar, stored, buttons


def wire_chat(page: Page, chat: Chat, stored: gr.Radio) -> list[Any]:
    """Everything that makes the model speak; the events that stop it cancel what is returned."""
    talk, shown, box = chat.talk, chat.shown, chat.box
    asks = [
        shown.retry(page.retry, talk, shown, **SOON),
        shown.edit(page.edit, talk, shown, **SOON),
        shown.example_select(page.example, talk, shown, **SOON),
        gr.on(
            [chat.call_answer.submit, chat.call_send.click],
            page.answer_call,
            [talk, chat.call_answer],
            shown,
            **SOON,
        ),
    ]
    outputs = [shown, *chat.inspector]
    answered: list[Any] = [box.submit(page.say, [box, talk, *chat.panel], [box, chat.call, *outputs], **TOLD)]
    for asked in asks:
        busy = asked.success(
            lambda: (gr.MultimodalTextbox(**BUSY), gr.Group(visible=False)), None, [box, chat.call], **SOON
        )
        answered.append(busy.success(page.chat, [talk, *chat.panel], outputs, **TOLD))
    for answer in answered:
        keep(page, chat, stored, answer.then(page.rest, talk, [box, chat.call, chat.call_answer], **SOON))
    box.stop(None, cancels=answered)
    keep(page, chat, stored, shown.undo(page.undo, talk, [box, shown], **SOON))
    return answered


def keep(page: Page, chat: Chat, stored: gr.Radio, event: Any) -> None:
    """After this event the browser stores the conversation anew, and lists what it has."""
    event.then(page.kept, [chat.talk, *chat.panel], chat.carrier, **SOON).then(
        page.listed, [chat.carrier, chat.talk], stored, js="(kept) => [playground.save(kept), null]", **SOON
    )


def wire_sidebar(
    page: Page, chat: Chat, stored: gr.Radio, buttons: dict[str, Any], answered: list[Any]
) -> None:
    """The sidebar's buttons; another conversation ends the answer that is coming in this one."""
    everything = [chat.talk, chat.shown, *chat.panel]
    for event, forget in (
        (buttons["new"].click, "false"),
        (buttons["delete"].click, "true"),
        (chat.shown.clear, "true"),
    ):
        new = event(lambda: page.open(None), None, everything, cancels=answered, **SOON)
        js = f"() => [playground.forget({forget}), null]"
        new.then(page.listed, [chat.carrier, chat.talk], stored, js=js, **SOON)
    opening = "(_, id) => [playground.open(id), id]"
    stored.input(page.reopen, [chat.carrier, stored], everything, js=opening, cancels=answered, **TOLD)
    imported = buttons["import"].upload(
        page.imported, buttons["import"], everything, cancels=answered, **TOLD
    )
    keep(page, chat, stored, imported)
    buttons["export"].click(page.kept, [chat.talk, *chat.panel], chat.carrier, **SOON).then(
        None, chat.carrier, None, js="(kept) => playground.download(kept)"
    )
    buttons["share"].click(page.shared, chat.panel, chat.carrier, **TOLD).then(
        None, chat.carrier, None, js="(query) => playground.share(query)"
    )


def build(settings: Settings) -> gr.Blocks:
    """The whole app; nothing is asked of the server before somebody opens the page."""
    page = Page(settings)
    with gr.Blocks(
        title="Gemma 3n playground", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True
    ) as app:
        demo: gr.Blocks = app  # Gradio says that it enters as anything.
        heading = gr.HTML(view.heading(State()), elem_id="heading")
        with gr.Tabs():
            with gr.Tab("Chat") as first:
                chat = chat_tab()
            with gr.Tab("Side by side") as second:
                sides = side_tab(page)
            with gr.Tab("Status") as third:
                status_tab(page, third, [first, second])
        bar, stored, buttons = sidebar()
        wire_sidebar(page, chat, stored, buttons, wire_chat(page, chat, stored))
        seen, models = gr.State(""), [each[0] for each in (chat.panel, *sides)]
        refresh: dict[str, Any] = {
            "fn": page.refresh,
            "inputs": [seen, *models],
            "outputs": [seen, heading, *models],
            **SOON,
        }
        demo.load(
            page.start,
            chat.carrier,
            [bar, chat.talk, chat.shown, stored, *chat.panel],
            js="() => playground.start()",
            **SOON,
        ).then(**refresh)
        gr.Timer(5).tick(**refresh)
    demo.max_threads = 256  # Events at a time; each open answer is one.
    demo.queue(default_concurrency_limit=None)
    return demo
