import os
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from openai.types.chat import ChatCompletionTokenLogprob

from fake_openai import MODEL, FakeOpenAI
from gemma_playground import view
from gemma_playground.app import build
from gemma_playground.client import Answer, Client
from gemma_playground.conversation import Conversation
from gemma_playground.page import Page
from gemma_playground.request import PANEL, panel
from gemma_playground.settings import Settings
from gemma_playground.status import State, Status

METRICS = """# HELP x
gemma_api_num_requests_running 2.0
gemma_api_inter_token_latency_seconds_count {pieces}
gemma_api_time_to_first_token_seconds_count 1.0
"""


async def drain(looks: Any) -> list[Any]:
    return [look async for look in looks]


async def test_a_question_is_answered_kept_and_restored(fake: FakeOpenAI) -> None:
    page = Page(Settings(base_url=fake.base_url, api_key="sk-secret"))
    talk = Conversation()
    looks = await drain(page.say({"text": "Hi", "files": []}, talk, *panel({"temperature": "0.5"})))
    await page.client.close()
    assert looks[-1][2][-1]["content"][0]["text"] == "You said: Hi"
    kept = page.kept(talk, *panel({"temperature": "0.5"}))
    assert "sk-secret" not in str(kept) + str(looks) + repr(page.settings)
    again, shown, *values = page.open(kept)
    assert (again.messages, shown) == (talk.messages, talk.shown())
    assert dict(zip(PANEL, values, strict=True))["temperature"] == "0.5"


async def test_two_are_asked_at_once(fake: FakeOpenAI) -> None:
    page = Page(Settings(base_url=fake.base_url))
    talks = Conversation(), Conversation()
    message = {"text": "Hi", "files": []}
    looks = await drain(page.both(message, *talks, *panel({"seed": "1"}), *panel({"seed": "x"})))
    await page.client.close()
    assert talks[0].messages[-1]["content"] == "You said: Hi"
    assert len(looks[0]) == len(looks[1]) == 5
    assert "is not a number" in str(looks[1][3])
    assert [asked["seed"] for asked in fake.asked] == [1]


def test_what_the_browser_kept_may_be_broken() -> None:
    page = Page(Settings())
    stored = {
        "open": {"messages": [{"role": "x"}]},
        "titles": [],
        "query": "?temperature=1&tem=2",
        "wide": True,
    }
    _, talk, shown, _, *values = page.start(stored)
    assert (talk.messages, shown) == ([], [])
    assert dict(zip(PANEL, values, strict=True))["temperature"] == "1"


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[1]", b'"x"', b"{}"])
def test_an_import_that_is_none_is_told(data: bytes) -> None:
    with pytest.raises(gr.Error, match=r"\."):
        Page(Settings()).imported(data)


async def test_a_refused_file_is_told_and_escaped(tmp_path: Path) -> None:
    path = tmp_path / "<b>.png"
    path.write_bytes(b"no")
    with pytest.raises(gr.Error, match="&lt;b&gt;"):
        await drain(Page(Settings()).say({"text": "", "files": [str(path)]}, Conversation(), *panel({})))


def test_everything_that_is_html_is_escaped() -> None:
    top = {"token": '"><script>', "logprob": -1.0, "bytes": None}
    token = ChatCompletionTokenLogprob.model_validate({**top, "top_logprobs": [top]})
    evil = "<script>"
    html = view.tokens(Answer(tokens=[token])) + view.facts(Answer(finish_reason=evil))
    html += view.heading(State(sentence=evil, models=(evil,))) + view.health(
        State(told={"device": evil}), evil
    )
    assert "<script" not in html
    assert "36.8 %" in html
    assert view.tokens(Answer()) == ""


async def test_status_is_asked_once_a_second_and_recovers(fake: FakeOpenAI) -> None:
    clock = [0.0]
    fake.pages |= {"/health": (200, {"status": "ok"}), "/metrics": (200, METRICS.format(pieces=10))}
    client = Client(Settings(base_url=fake.base_url))
    status = Status(Settings(base_url=fake.base_url), client, lambda: clock[0])
    first = await status.look()
    assert (first.ready, first.models, first.running, first.speed) == (True, (MODEL,), 2, None)
    fake.pages |= {"/health": (503, {"error": {"message": "Loading."}})}
    fake.pages |= {"/metrics": (200, METRICS.format(pieces=30))}
    assert await status.look() is first
    clock[0] += 2
    assert (await status.look()).sentence == "The server is not ready: Loading."
    fake.pages |= {"/health": (200, ["no", "mapping"])}
    clock[0] += 2
    assert (await status.look()).ready
    fake.pages |= {"/metrics": (200, METRICS.format(pieces=50))}
    clock[0] += 2
    assert (await status.look()).speed == 10
    fake.stop()
    clock[0] += 2
    assert "does not answer" in (await status.look()).sentence
    assert status.plot()["data"][-1][1] == 10
    await status.close()
    await client.close()


async def test_settings_and_the_page_are_built_without_a_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = {
        "OPENAI_BASE_URL": "http://x/v1",
        "PLAYGROUND_PORT": "1",
        "OPENAI_API_KEY": "sk-secret",
        "PLAYGROUND_HOST": "",
    }
    settings = Settings.read(["--port", "2"], told)
    assert (settings.base_url, settings.root, settings.port, settings.host) == (
        "http://x/v1",
        "http://x",
        2,
        "127.0.0.1",
    )
    monkeypatch.setitem(os.environ, "GRADIO_TEMP_DIR", str(tmp_path))
    demo = build(settings)
    assert "sk-secret" not in str(demo.get_config_file())
    labels = {part.label for part in demo.blocks.values() if isinstance(part, gr.Textbox)}
    assert labels >= set(PANEL.values()) - {"Model", "Response format", "Log probabilities"}
