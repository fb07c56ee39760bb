"""Requests that once failed in use, with the bundled model and its playground."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

import cases
import large_bodies
from demo_client import Demo, b64, closed, json_schema, ok
from image_files import red_square
from stack import ROOT, Stack, eventually, running

NANO = ROOT / "models" / "gemma3n-nano"
pytestmark = [pytest.mark.skipif(not NANO.is_dir(), reason="there is no models/gemma3n-nano")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("cases") / "log", f"--model={NANO}", playground=True) as stack:
        yield stack


@pytest.fixture
def demo(served: Stack) -> Demo:
    return Demo(served.url)


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.__name__)
def test_case(demo: Demo, case: Callable[[Demo], None]) -> None:
    case(demo)


@pytest.mark.parametrize("name", cases.NO_OP_VALUES)
def test_no_op_values_are_accepted(demo: Demo, name: str) -> None:
    ok(demo.chat(**{name: cases.NO_OP_VALUES[name]}))


@pytest.mark.parametrize("form", cases.BASE64_VARIANTS)
def test_base64_variants_are_accepted(demo: Demo, form: str) -> None:
    assert "red" in demo.see("data:" + cases.BASE64_VARIANTS[form](red_square()))


@pytest.mark.parametrize("kind", cases.IMAGE_FORMATS)
def test_documented_image_formats_are_accepted(demo: Demo, kind: str) -> None:
    assert "red" in demo.see(f"data:image/{kind.lower()};base64,{b64(red_square(kind))}")


@pytest.mark.parametrize("name", cases.COMMON_SCHEMAS)
def test_common_schemas_are_accepted(demo: Demo, name: str) -> None:
    form = json_schema(closed(v=cases.COMMON_SCHEMAS[name]), strict=False)
    ok(demo.chat("Give v.", response_format=form, max_tokens=48))


@pytest.mark.parametrize("name", large_bodies.LARGE)
def test_many_small_items_do_not_delay_health_checks(served: Stack, name: str) -> None:
    """The goal is 0.25 s; on two cores that also run other tests it takes longer."""
    status, worst_s = large_bodies.longest_health_check(served.url, large_bodies.LARGE[name]())
    assert 400 <= status < 500
    assert worst_s < 2


@pytest.mark.parametrize("path", ["/etc/hostname", "/proc/self/environ"])
def test_the_playground_reads_no_files(served: Stack, path: str) -> None:
    """A stored conversation refers to a file of the server as if it were an upload."""
    assert eventually(lambda: _is_ready(served.playground_url), 60)
    with httpx.Client(base_url=served.playground_url, timeout=30, trust_env=False) as page:
        fake_file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        stored = {"messages": [{"role": "user", "content": "hi", "x": fake_file}]}
        page.get("/").raise_for_status()  # the session's cookie comes with the page
        config = page.get("/config").json()
        for event in config["dependencies"]:
            for given in (stored, fake_file):
                _send(page, event, given)
        assert page.get(f"/gradio_api/file={path}").status_code != 200


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _send(page: httpx.Client, event: dict[str, Any], given: Any) -> None:
    for place in range(len(event["inputs"])):
        data = [given if i == place else None for i in range(len(event["inputs"]))]
        body = {"data": data, "fn_index": event["id"], "session_hash": "madeup", "trigger_id": None}
        answer = page.post("/gradio_api/run/predict", json=body)
        for found in _paths(answer):
            assert page.get(f"/gradio_api/file={found}").status_code != 200


def _paths(answer: httpx.Response) -> list[str]:
    """Every path in a response."""
    found: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            found.extend([value["path"]] if isinstance(value.get("path"), str) else [])
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    if "json" in answer.headers.get("content-type", ""):
        look(answer.json())
    return found
