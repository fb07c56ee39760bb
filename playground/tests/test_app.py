import os
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from openai.types.chat import ChatCompletionChunk

from fake_openai import MODEL, FakeOpenAI
from gemma_playground import app, event_handlers
from gemma_playground.api_client import ApiClient, ChatResponse
from gemma_playground.conversation import Conversation
from gemma_playground.file_store import FileStore
from gemma_playground.settings import PlaygroundSettings
from gemma_playground.settings_panel import FIELDS, panel_values
from gemma_playground.templates import HTML

QUESTION = {"text": "Hi", "files": []}
SUBMIT = gr.EventData(None, None)


def panel(**told: str) -> list[Any]:
    """With no model chosen."""
    return [None, *panel_values(told)[1:]]


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path, PlaygroundSettings())


def of_tab(name: str = "0a-tab") -> gr.Request:
    return gr.Request(session_hash=name)


async def drain(updates: Any) -> list[Any]:
    return [look async for look in updates]


async def test_a_message_gets_a_response_and_can_be_stored_and_opened(
    fake: FakeOpenAI, store: FileStore
) -> None:
    client = ApiClient(fake.base_url, "sk-secret")
    talk = Conversation()
    updates = await drain(
        event_handlers.request_handler(client, store, "submit")(
            SUBMIT, of_tab(), QUESTION, talk, *panel(temperature="0.5")
        )
    )
    await client.close()
    assert updates[-1][1][-1]["content"][0]["text"] == "You said: Hi"
    assert fake.requests[0]["model"] == MODEL, "without a model the first is asked"
    kept = event_handlers.to_storage(talk, *panel(temperature="0.5"))
    assert "sk-secret" not in str(kept) + str(updates)
    keep = event_handlers.file_storer(store, of_tab())
    again, shown, *restored = event_handlers.open_conversation(keep, kept)
    assert (again, shown) == (talk, talk.to_chatbot(keep))
    assert dict(zip(FIELDS, restored, strict=True))["temperature"] == "0.5"


async def test_two_requests_are_sent_at_once(fake: FakeOpenAI, store: FileStore) -> None:
    client = ApiClient(fake.base_url)
    talks = Conversation(), Conversation()
    given = talks[0], *panel(seed="1"), talks[1], *panel(seed="x")
    updates = await drain(
        event_handlers.request_handler(client, store, "submit")(SUBMIT, of_tab(), QUESTION, *given)
    )
    await client.close()
    assert talks[0].messages[-1]["content"] == "You said: Hi"
    assert {len(look) for look in updates} == {1 + 2 * len(event_handlers.UNCHANGED)}
    assert any("is not JSON" in str(look[1 + len(event_handlers.UNCHANGED)]) for look in updates)
    assert [asked["seed"] for asked in fake.requests] == [1]


async def test_no_request_is_sent_before_every_tool_call_has_a_result(
    fake: FakeOpenAI, store: FileStore
) -> None:
    client = ApiClient(fake.base_url)
    function = {"name": "add", "arguments": "{}"}
    calls = [{"id": number, "type": "function", "function": function} for number in ("c1", "c2")]
    talk = Conversation(messages=[{"role": "assistant", "content": "", "tool_calls": calls}])
    for asked in (0, 1):
        await drain(
            event_handlers.request_handler(client, store, "submit")(
                SUBMIT, of_tab(), QUESTION, talk, *panel()
            )
        )
        assert len(fake.requests) == asked
    await client.close()


def test_html_is_escaped() -> None:
    evil = "<script>"
    top = {"token": '"><script>', "logprob": -1.0, "bytes": None}
    content = [{**top, "top_logprobs": [top]}]
    choice = {"index": 0, "delta": {"content": evil}, "finish_reason": evil, "logprobs": {"content": content}}
    answer, client = ChatResponse(), ApiClient(evil)
    assert HTML.tokens(answer) == ""
    assert "<dt>TTFT</dt><dd>–</dd>" in HTML.facts(answer), "what is not known is a dash"
    answer.add_chunk(ChatCompletionChunk.construct(choices=[choice]))
    client.models, client.facts = [evil], {"health": evil, evil: evil}
    html = HTML.tokens(answer) + HTML.facts(answer) + HTML.heading(client) + HTML.lines(client.facts)
    assert "<script" not in html
    assert "36.8%" in html


async def test_settings_and_the_page_are_built_without_a_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = PlaygroundSettings.read(
        ["--port", "2"], {"OPENAI_BASE_URL": "http://x/v1", "PLAYGROUND_PORT": "1", "PLAYGROUND_HOST": ""}
    )
    assert (told.base_url, told.port, told.host) == ("http://x/v1", 2, "127.0.0.1")
    monkeypatch.setitem(os.environ, "GRADIO_TEMP_DIR", str(tmp_path))
    demo = app.build(ApiClient(told.base_url, "sk-secret"), FileStore(tmp_path, told), told.max_queue)
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


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PLAYGROUND_MAX_FILE_BYTES", "0"),
        ("PLAYGROUND_MAX_FILE_BYTES", "20 MB"),
        ("PLAYGROUND_FILE_SECONDS", "-1"),
        ("PLAYGROUND_MAX_QUEUE", "x"),
        ("PLAYGROUND_PORT", "x"),
    ],
)
def test_an_invalid_setting_is_named(variable: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        PlaygroundSettings.read([], {variable: value})
    assert variable in capsys.readouterr().err


def test_allowed_hosts_are_a_list() -> None:
    told = PlaygroundSettings.read([], {"PLAYGROUND_ALLOWED_HOSTS": "Play.Example.org, ,b"})
    assert told.allowed_hosts == ("play.example.org", "b")


EVENTS: list[tuple[str, Any]] = [
    ("edit", {"index": None, "value": "x"}),
    ("edit", {"index": 0, "value": None}),
    ("example_select", {"index": 99, "value": None}),
    ("example_select", {"index": None, "value": None}),
]


@pytest.mark.parametrize(("name", "data"), EVENTS)
async def test_an_event_that_refers_to_no_message_changes_nothing(
    store: FileStore, name: str, data: Any
) -> None:
    talk = Conversation(messages=[{"role": "user", "content": "Hi"}])
    asking = event_handlers.request_handler(ApiClient("http://127.0.0.1:9/v1"), store, name)
    with pytest.raises(gr.Error, match="Reload the page"):
        await drain(asking(gr.EventData(None, data), of_tab(), QUESTION, talk, *panel()))
    assert talk.messages == [{"role": "user", "content": "Hi"}]
