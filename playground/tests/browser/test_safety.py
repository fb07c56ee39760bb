"""Nothing that somebody writes or says runs as a script, and the key stays where it is."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.async_api import Page, Response, expect

from fake_openai import FakeOpenAI, Part, Refuse, Request, call
from materials import square, written
from playgrounds import Playground
from screen import Screen, Visit

RUN = "console.log('a script ran')"
IMAGE = f'<img src=x onerror="{RUN}">'
TAG = f"<img src=x onerror={RUN}>"  # as a file may be called
PAYLOADS = (
    f"<script>{RUN}</script>",
    IMAGE,
    f'<svg onload="{RUN}"></svg>',
    f"<svg><script>{RUN}</script></svg>",
    f'<details open ontoggle="{RUN}">more</details>',
    f'<iframe srcdoc="<script>{RUN}</script>"></iframe>',
    f'<iframe src="javascript:{RUN}"></iframe>',
    f'<video><source onerror="{RUN}"></video>',
    f'<input autofocus onfocus="{RUN}">',
    f'<a href="javascript:{RUN}">link</a>',
    f"[link](javascript:{RUN})",
    f"[link](JaVa&#115;cript:{RUN})",
    f'![picture](x" onerror="{RUN})',
    f"```html\n</code></pre>{IMAGE}\n```",
    f"$$\\href{{javascript:{RUN}}}{{link}}$$",
    f'<form action="javascript:{RUN}"><button>link</button></form>',
    f'">{IMAGE}',
    # the last, since it may swallow what follows
    f'<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=x onerror={RUN}&gt;">',
)
ALL = "\n\n".join(PAYLOADS)


def _watch(page: Page) -> list[str]:
    """What scripts have done that should not run."""
    done: list[str] = []
    page.on("console", lambda said: done.append(said.text) if said.text == "a script ran" else None)
    page.on("dialog", lambda dialog: done.append(dialog.message))
    return done


async def _click_links(screen: Screen) -> None:
    """A script may hide behind a link; none leads to one, and those of the payloads are clicked."""
    addresses = await screen.page.locator("a").evaluate_all("links => links.map(link => link.href)")
    assert not [each for each in addresses if each.lower().startswith(("javascript:", "data:text"))]
    links = screen.page.locator("#chat").get_by_text("link", exact=True).filter(visible=True)
    for number in range(await links.count()):
        await links.nth(number).dispatch_event("click")  # wherever it has scrolled, whatever covers it


async def test_a_message_executes_no_script(visit: Visit, scripted: Playground, fake: FakeOpenAI) -> None:
    fake.script = lambda request: ["No."]
    screen = await visit(scripted)
    done = _watch(screen.page)
    await screen.send_message(ALL)
    await screen.wait_complete()
    await screen.wait_stored('"No."')
    await screen.reload()  # it is in the list of conversations as well
    await expect(screen.responses.last).to_contain_text("No.")
    await _click_links(screen)  # the last: where a link leads to this very page, the browser goes there
    assert done == []


async def test_nothing_runs_in_an_answer(visit: Visit, scripted: Playground, fake: FakeOpenAI) -> None:
    fake.script = lambda request: [ALL[at : at + 40] for at in range(0, len(ALL), 40)]
    screen = await visit(scripted)
    done = _watch(screen.page)
    await screen.send_message("Say something")
    await screen.wait_complete()
    await expect(screen.metric("finish reason")).to_have_text("stop")
    await _click_links(screen)
    assert done == []


def _refuse(request: Request) -> Iterable[Part]:
    raise Refuse(400, ALL)


def _call(request: Request) -> Iterable[Part]:
    return [call(IMAGE, json.dumps({"text": ALL}) + "\n```\n" + ALL, IMAGE)]


@pytest.mark.parametrize("script", [_refuse, _call])
async def test_nothing_runs_in_an_error_or_a_call(
    visit: Visit, scripted: Playground, fake: FakeOpenAI, script: Callable[[Request], Iterable[Part]]
) -> None:
    fake.script = script
    screen = await visit(scripted)
    done = _watch(screen.page)
    await screen.send_message("Hello")
    await expect(screen.chat).to_contain_text("a script ran")
    await screen.wait_complete()
    await _click_links(screen)
    assert done == []


async def test_names_addresses_and_files_execute_no_script(
    visit: Visit, scripted: Playground, fake: FakeOpenAI, tmp_path: Path
) -> None:
    messages = [{"role": "user", "content": ALL}, {"role": "assistant", "content": ALL}]
    talk = {"id": IMAGE, "title": IMAGE, "messages": messages, "settings": {"system": IMAGE}}
    screen = await visit(scripted)
    done = _watch(screen.page)
    await screen.open("?" + urlencode({"system": IMAGE, "stop": IMAGE, "seed": IMAGE}))
    await screen.send_message("What is this?", square(tmp_path, f"{TAG}.png"))
    await screen.wait_complete()
    await screen.attach(
        written(tmp_path, "<img src=x onerror=console.log('a script ran')>.txt", "no picture")
    )
    await expect(screen.toast.first).to_be_visible()
    await screen.open()
    await screen.choose("Import", written(tmp_path, "talk.json", json.dumps(talk)))
    await expect(screen.responses.last).to_contain_text("link")
    await screen.wait_stored("javascript")  # the last that an import does
    await _click_links(screen)
    assert done == []


async def test_a_response_causes_no_request_to_another_host(
    visit: Visit, scripted: Playground, fake: FakeOpenAI
) -> None:
    """An image in Markdown could send the conversation to its host."""
    picture = f"127.0.0.1:{fake.port}/picture.png"
    fake.script = lambda request: [f'![a](http://{picture}) <img src="//{picture}"> The end.']
    screen = await visit(scripted)
    await screen.send_message("Show me a picture")
    await expect(screen.responses.last).to_contain_text("The end.")
    await screen.wait_complete()
    assert screen.foreign == []
    assert "/picture.png" not in fake.paths


async def test_the_key_stays_with_the_playground(
    visit: Visit, scripted: Playground, fake: FakeOpenAI, secret: str, tmp_path: Path
) -> None:
    screen = await visit(scripted)
    told: list[Response] = []
    await screen.page.goto("about:blank")  # what a page asked that is left has no body any more
    screen.page.on("response", lambda response: told.append(response))  # noqa: PLW0108 - it wants a Python function
    await screen.open()
    await screen.send_message("Hello")
    await screen.wait_complete()
    assert fake.keys == {f"Bearer {secret}"}, "the server is never asked without it"
    await screen.wait_stored("You said: Hello")
    assert secret not in await screen.download("Export", tmp_path / "talk.json")
    await screen.tab("Status")
    stored = await screen.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert "Hello" in stored
    assert secret not in stored
    assert secret not in await screen.page.content()
    assert secret not in scripted.log.read_text(encoding="utf-8")
    for answer in told:
        if "queue/data" not in answer.url and "heartbeat" not in answer.url:  # these have no end
            assert secret.encode() not in await answer.body(), answer.url
