import os
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from openai.types.chat import ChatCompletionChunk

from fake_openai import MODEL, FakeOpenAI
from gemma_playground import app
from gemma_playground.__main__ import settings
from gemma_playground.app import HTML
from gemma_playground.client import Answer, Client
from gemma_playground.conversation import Conversation
from gemma_playground.panel import NAMES, values

QUESTION = {"text": "Hi", "files": []}
SUBMIT = gr.EventData(None, None)


def panel(**told: str) -> list[Any]:
    """With no model chosen."""
    return [None, *values(told)[1:]]


async def drain(looks: Any) -> list[Any]:
    return [look async for look in looks]


async def test_a_question_is_answered_kept_and_opened(fake: FakeOpenAI) -> None:
    client = Client(fake.base_url, "sk-secret")
    talk = Conversation()
    looks = await drain(app.asking(client, "submit")(SUBMIT, QUESTION, talk, *panel(temperature="0.5")))
    await client.close()
    assert looks[-1][1][-1]["content"][0]["text"] == "You said: Hi"
    assert fake.asked[0]["model"] == MODEL, "without a model the first is asked"
    kept = app.kept(talk, *panel(temperature="0.5"))
    assert "sk-secret" not in str(kept) + str(looks)
    again, shown, *restored = app.opened(kept)
    assert (again, shown) == (talk, talk.shown())
    assert dict(zip(NAMES, restored, strict=True))["temperature"] == "0.5"


async def test_two_are_asked_at_once(fake: FakeOpenAI) -> None:
    client = Client(fake.base_url)
    talks = Conversation(), Conversation()
    given = talks[0], *panel(seed="1"), talks[1], *panel(seed="x")
    looks = await drain(app.asking(client, "submit")(SUBMIT, QUESTION, *given))
    await client.close()
    assert talks[0].messages[-1]["content"] == "You said: Hi"
    assert {len(look) for look in looks} == {1 + 2 * len(app.SAME)}
    assert any("is not JSON" in str(look[1 + len(app.SAME)]) for look in looks)
    assert [asked["seed"] for asked in fake.asked] == [1]


async def test_nobody_is_asked_before_every_call_is_answered(fake: FakeOpenAI) -> None:
    client = Client(fake.base_url)
    function = {"name": "add", "arguments": "{}"}
    calls = [{"id": number, "type": "function", "function": function} for number in ("c1", "c2")]
    talk = Conversation(messages=[{"role": "assistant", "content": "", "tool_calls": calls}])
    for asked in (0, 1):
        await drain(app.asking(client, "submit")(SUBMIT, QUESTION, talk, *panel()))
        assert len(fake.asked) == asked
    await client.close()


def test_everything_that_is_html_is_escaped() -> None:
    evil = "<script>"
    top = {"token": '"><script>', "logprob": -1.0, "bytes": None}
    content = [{**top, "top_logprobs": [top]}]
    choice = {"index": 0, "delta": {"content": evil}, "finish_reason": evil, "logprobs": {"content": content}}
    answer, client = Answer(), Client(evil)
    assert HTML.tokens(answer) == ""
    assert "<dt>TTFT</dt><dd>–</dd>" in HTML.facts(answer), "what is not known is a dash"
    answer.take(ChatCompletionChunk.construct(choices=[choice]))
    client.models, client.facts = [evil], {"health": evil, evil: evil}
    html = HTML.tokens(answer) + HTML.facts(answer) + HTML.heading(client) + HTML.lines(client.facts)
    assert "<script" not in html
    assert "36.8%" in html


async def test_settings_and_the_page_are_built_without_a_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = settings(
        ["--port", "2"], {"OPENAI_BASE_URL": "http://x/v1", "PLAYGROUND_PORT": "1", "PLAYGROUND_HOST": ""}
    )
    assert (told.base_url, told.port, told.host) == ("http://x/v1", 2, "127.0.0.1")
    monkeypatch.setitem(os.environ, "GRADIO_TEMP_DIR", str(tmp_path))
    demo = app.build(Client(told.base_url, "sk-secret"))
    assert "sk-secret" not in str(demo.get_config_file())
    labels = {part.label for part in demo.blocks.values() if isinstance(part, gr.Textbox)}
    assert labels >= {
        "System prompt",
        "Temperature",
        "Top p",
        "Max tokens",
        "Seed",
        "Stop sequences",
        "Tools",
    }
