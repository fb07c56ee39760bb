"""What happens when a part of the page is used."""

import asyncio
import html
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import gradio as gr

from gemma_playground import request, view
from gemma_playground.client import Answer, Client
from gemma_playground.conversation import Conversation, Message
from gemma_playground.media import Refused
from gemma_playground.settings import Settings
from gemma_playground.status import Status

Outputs = tuple[Any, ...]
"""A value for each component that the handler's event names, in that order."""
BUSY: Final[dict[str, Any]] = {"interactive": False, "submit_btn": False, "stop_btn": True}
REST: Final[dict[str, Any]] = {"interactive": True, "submit_btn": True, "stop_btn": False}
"""The text box while an answer comes, and after it."""
KEEP = [gr.skip() for _ in request.PANEL]
"""The panel of settings as it is."""


class Page:
    """The handlers. What a visitor says is in the tab's ``Conversation``, and goes when the tab does."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = Client(settings)
        self.status = Status(settings, self.client)

    def _send(self, message: dict[str, Any], *talks: Conversation) -> gr.MultimodalTextbox:
        """The user speaks, to one model or to two; the text box is emptied until the answer is there."""
        for talk in talks:
            _or_tell(talk.say, message["text"], message["files"], self.settings.max_file_bytes)
        return gr.MultimodalTextbox({"text": "", "files": []}, **BUSY)

    async def answers(
        self, talk: Conversation, *values: Any
    ) -> AsyncGenerator[tuple[list[Message], Answer, Any], None]:
        """The chat with its growing answer, the answer itself, and what was asked."""
        try:
            sent = request.request(talk.to_send(), values)
        except Refused as refused:
            yield talk.shown(str(refused)), Answer(), None
            return
        reply = talk.reply()
        async with aclosing(self.client.ask(sent)) as growing:
            async for answer in growing:
                reply.grow(answer)
                yield talk.shown(answer.error), answer, sent

    async def chat(self, talk: Conversation, *values: Any) -> AsyncGenerator[Outputs, None]:
        """An answer in the chat, with the inspector beside it."""
        told = False
        async with aclosing(self.answers(talk, *values)) as growing:
            async for shown, answer, sent in growing:
                new = not told and bool(sent and sent["model"])
                told = told or new
                code = request.snippets(sent, self.settings.base_url) if new else [gr.skip()] * 3
                yield shown, view.facts(answer), view.tokens(answer), *code

    async def say(
        self, message: dict[str, Any], talk: Conversation, *values: Any
    ) -> AsyncGenerator[Outputs, None]:
        """The user speaks and is answered: one event; Gradio may lose a queued one right after another."""
        box = self._send(message, talk)
        yield box, gr.Group(visible=False), talk.shown(), *[gr.skip()] * 5
        async with aclosing(self.chat(talk, *values)) as growing:
            async for outputs in growing:
                yield gr.skip(), gr.skip(), *outputs

    async def both(
        self, message: dict[str, Any], left: Conversation, right: Conversation, *values: Any
    ) -> AsyncGenerator[Outputs, None]:
        """Two answers at once, each with its facts; whichever is ready first waits as it is."""
        box = self._send(message, left, right)
        yield box, left.shown(), gr.skip(), right.shown(), gr.skip()
        half = len(request.PANEL)
        one, two = self.answers(left, *values[:half]), self.answers(right, *values[half:])
        async with aclosing(one), aclosing(two):
            while any(steps := await asyncio.gather(anext(one, None), anext(two, None))):
                yield gr.skip(), *(part for step in steps for part in _side(step))

    def retry(self, talk: Conversation) -> list[Message]:
        """The last question once more."""
        talk.retry()
        return talk.shown()

    def undo(self, talk: Conversation) -> Outputs:
        """The last question goes back into the text box."""
        return talk.undo(), talk.shown()

    def edit(self, talk: Conversation, edit: gr.EditData) -> list[Message]:
        """A question is asked in other words."""
        talk.edit(edit.index if isinstance(edit.index, int) else edit.index[0], str(edit.value))
        return talk.shown()

    def example(self, talk: Conversation, example: gr.SelectData) -> list[Message]:
        """An example is asked."""
        files = [file["path"] for file in example.value.get("files", [])]
        _or_tell(talk.say, example.value["text"], files, self.settings.max_file_bytes)
        return talk.shown()

    def answer_call(self, talk: Conversation, text: str) -> list[Message]:
        """A called function's answer goes back to the model."""
        talk.answer_call(text)
        return talk.shown()

    def rest(self, talk: Conversation) -> Outputs:
        """The text box is open again; a call that waits for its answer gets one of its own."""
        call = talk.waiting()
        label = f"{call['function']['name']}({call['function']['arguments']}) gave back:" if call else ""
        box = gr.MultimodalTextbox(**REST)
        return box, gr.Group(visible=call is not None), gr.Textbox(value="", info=html.escape(label))

    def kept(self, talk: Conversation, *values: Any) -> dict[str, Any]:
        """The conversation as it is stored and exported: messages and settings, never a key."""
        about = {"id": talk.id, "title": talk.title, "settings": request.touched(values)}
        return {**about, "messages": talk.messages}

    def open(self, kept: Any) -> Outputs:
        """A conversation that the browser kept, or a new one: it, its chat, its settings."""
        talk = Conversation()
        if kept is None:
            return talk, [], *KEEP
        _or_tell(talk.restore, kept, self.settings.max_file_bytes)
        return talk, talk.shown(), *request.panel(kept.get("settings"))

    def reopen(self, kept: Any, _: str) -> Outputs:
        """A conversation of the list."""
        return self.open(kept)

    def imported(self, data: bytes) -> Outputs:
        """A conversation of a file, under a name of its own."""
        kept = _or_tell(_loaded, data)
        return self.open({**kept, "id": None} if isinstance(kept, dict) else {"messages": kept})

    def start(self, stored: dict[str, Any]) -> Outputs:
        """A fresh page: the conversation that was open, the list of all, and the settings of the URL."""
        try:
            talk, chat, *values = self.open(stored["open"])
        except gr.Error:  # What the browser kept is broken; the page begins anew.
            talk, chat, *values = self.open(None)
        told = dict(parse_qsl(str(stored["query"]).removeprefix("?")))
        listed, bar = self.listed(stored["titles"], talk), gr.Sidebar(open=bool(stored["wide"]))
        return bar, talk, chat, listed, *(request.panel(told) if told else values)

    def listed(self, titles: list[list[str]], talk: Conversation) -> gr.Radio:
        """The list of conversations."""
        known = [ident for _, ident in titles]
        choices = [(title[:60], ident) for title, ident in titles]
        return gr.Radio(choices, value=talk.id if talk.id in known else None)

    def shared(self, *values: Any) -> dict[str, str]:
        """The settings as a URL's query; nothing else is in it."""
        gr.Info("The link to these settings is in the address bar and on the clipboard.", duration=4)
        return {"query": "?" + urlencode(request.touched(values))}

    async def refresh(self, seen: str, *models: str | None) -> Outputs:
        """The heading and the lists of models, when they are other than this tab has seen."""
        state = await self.status.look()
        if (heading := view.heading(state)) == seen:
            return gr.skip(), gr.skip(), *(gr.skip() for _ in models)
        first = next(iter(state.models), None)
        lists = [gr.Dropdown(list(state.models), value=model or first) for model in models]
        return heading, heading, *lists

    async def health(self) -> Outputs:
        """The status tab: its lines and its plot."""
        return view.health(await self.status.look(), self.settings.base_url), self.status.plot()


def _side(step: tuple[list[Message], Answer, Any] | None) -> Outputs:
    return (step[0], view.facts(step[1])) if step else (gr.skip(), gr.skip())


def _loaded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise Refused("This file is no JSON.") from None


def _or_tell(make: Callable[..., Any], *arguments: Any) -> Any:
    """What is made, or the sentence that says why not, as a notice on the page."""
    try:
        return make(*arguments)
    except Refused as refused:
        raise gr.Error(html.escape(str(refused), quote=False), print_exception=False) from refused
