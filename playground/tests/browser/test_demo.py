"""The first steps of a new user: ``make serve``, an image, three clicks, a correct response."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from materials import red_circle
from playgrounds import Playground
from screen import Visit
from stack import ROOT, Stack, running

DEMO = ROOT / "models" / "gemma3n-nano"
pytestmark = pytest.mark.skipif(
    not DEMO.is_dir(), reason=f"THE ANSWER'S MEANING IS NOT TESTED: there is no {DEMO.relative_to(ROOT)}"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """What ``make serve`` runs, the playground too; no setting but free ports."""
    with running(tmp_path_factory.mktemp("demo") / "log", playground=True, MODEL_NAME="") as stack:
        yield stack


async def test_three_clicks_to_a_correct_response_about_an_image(
    visit: Visit, served: Stack, tmp_path: Path
) -> None:
    playground = Playground(served.playground_url, served.log)
    playground.wait_ready()
    screen = await visit(playground)
    await screen.choose("Upload a file", red_circle(tmp_path))  # the first, and the second in the dialogue
    await screen.send.click()  # the third, without a word written
    await screen.wait_complete()
    await screen.expect_image(300)
    answer = (await screen.responses.last.inner_text()).lower()
    assert "red" in answer
    assert "circle" in answer
    await expect(screen.metric("finish reason")).to_have_text("stop")
