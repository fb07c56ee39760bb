"""``gemma-triton bench`` with a fake server."""

import io
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packages.launcher.tests.fake_openai import FakeServer, serving

from gemma_launcher.__main__ import main
from gemma_launcher.tools.bench.metrics import LatencySummary, RequestResult, percentile, summarize
from gemma_launcher.tools.bench.prompts import make_prompts, random_png
from gemma_launcher.tools.bench.report import plot


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(FakeServer()) as server:
        yield server


def bench(server: FakeServer, *more: str) -> int:
    few = ("--clients", "1,2", "--requests", "4", "--prompt-tokens", "12", "--max-tokens", "3")
    return main(["bench", "--base-url", server.url, *few, *more])


def test_every_request_is_counted_and_written(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(server, "--json", str(tmp_path / "out.json"), "--plot") == 0
    out = json.loads((tmp_path / "out.json").read_text())
    assert [level["clients"] for level in out["levels"]] == [1, 2]
    for level in out["levels"]:
        assert (level["requests"], level["failed"], level["output_tokens"]) == (4, 0, 12)
        assert level["prompt_tokens"] == [12, 12]
        assert 0 < level["first"]["p50"] <= level["first"]["p99"]
        assert level["client_cpu"] > 0
    assert out["notes"] == []
    said = capsys.readouterr().out
    assert "fake at http://127.0.0.1" in said
    assert "output tokens/s" in said


def test_the_requests(server: FakeServer) -> None:
    assert bench(server, "--body", '{"top_k": 5}') == 0
    assert len(server.asked) == 9, "one to warm up, four for each level"
    texts = [body["messages"][0]["content"] for body in server.asked]
    assert len(set(texts)) == len(texts), "no two prompts are alike"
    for body in server.asked:
        assert server.count(body["messages"]) == 12
        assert (body["max_tokens"], body["temperature"], body["stream"]) == (3, 0, True)
        assert (body["ignore_eos"], body["top_k"]) == (True, 5)


def test_failed_requests_are_reported_and_not_part_of_the_metrics(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fail = {4: 503}
    assert bench(server, "--json", str(tmp_path / "out.json")) == 1
    first, second = json.loads((tmp_path / "out.json").read_text())["levels"]
    assert (first["failed"], first["output_tokens"], first["errors"]) == (1, 9, ["503: no"])
    assert second["failed"] == 1
    assert (
        "at 1 clients 1 of 4 requests failed and are not part of the metrics: 503: no"
        in capsys.readouterr().out
    )


def test_an_interrupted_response_is_a_failure(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.break_off = True
    assert bench(server) == 1
    assert (
        "error: the warm-up request failed: the response was interrupted: the engine broke"
        in capsys.readouterr().err
    )


def test_a_server_without_usage_cannot_be_measured(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.usage = False
    assert bench(server) == 1
    assert "the server sent no usage" in capsys.readouterr().err


def test_a_server_without_ignore_eos_and_tokenize(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.ignore_eos, server.tokenize = False, False
    assert bench(server) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the server rejects ignore_eos" in said
    assert "prompts have approximately the requested length" in said
    assert "ignore_eos" not in server.asked[-1]


def test_a_response_that_ends_early_is_reported(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(server, "--max-tokens", "50") == 0
    assert "ends responses early" in capsys.readouterr().out


def test_images_are_sent_and_differ(server: FakeServer) -> None:
    assert bench(server, "--images", "2") == 0
    sent = [part["image_url"]["url"] for body in server.asked for part in body["messages"][0]["content"][:2]]
    assert len(set(sent)) == len(sent) == 18


def test_progress_is_shown_on_a_terminal(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert bench(server) == 0
    said = terminal.getvalue()
    assert "2 clients" in said
    assert "4/4" in said


def test_the_results_on_standard_output(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(server, "--json") == 0
    out = json.loads(capsys.readouterr().out)
    assert [level["clients"] for level in out["levels"]] == [1, 2]
    assert bench(server, "--plot", "--json") == 1
    assert capsys.readouterr().err == "error: --plot draws on standard output; use --json FILE with it\n"


def test_an_unwritable_file_is_reported_before_the_benchmark(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(server, "--json", "/no/such/out.json") == 1
    assert (
        capsys.readouterr().err == "error: /no/such/out.json cannot be written: No such file or directory\n"
    )
    assert not server.asked


@pytest.mark.parametrize("body", ["{", "[]"])
def test_an_invalid_body(server: FakeServer, body: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(server, "--body", body) == 1
    assert "--body is not" in capsys.readouterr().err


def test_an_unknown_model(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(server, "--model", "other") == 1
    assert "404: The model 'other' does not exist" in capsys.readouterr().err


def test_metrics_computed_by_hand() -> None:
    good = RequestResult(10.0, [11.0, 11.1, 11.3], 11.5, prompt_tokens=7, completion_tokens=3)
    late = RequestResult(10.0, [13.0, 13.5], 14.0, prompt_tokens=9, completion_tokens=2)
    bad = RequestResult(10.0, [10.5], 15.0, error="503: no")
    level = summarize(2, [good, late, bad], client_cpu_s=4.5)
    assert (level.requests, level.failed, level.seconds) == (3, 1, 5.0)
    assert level.output_tokens_per_s == 1.0
    assert level.tokens_per_s == (5 + 16) / 5
    assert level.prompt_tokens == (7, 9)
    assert level.first == LatencySummary.of([1.0, 3.0])
    assert level.per_token_ms == pytest.approx((0.3 + 0.5) / 3 * 1e3)
    assert level.client_cpu == pytest.approx(0.9)
    assert level.client_is_busy


def test_metrics_without_successful_requests() -> None:
    level = summarize(1, [RequestResult(0.0, [], 1.0, error="no")], 0.1)
    assert (level.first, level.gap, level.per_token_ms, level.output_tokens_per_s) == (None, None, None, 0)


def test_percentiles_are_interpolated() -> None:
    values = [float(n) for n in range(101)]
    assert [percentile(values, share) for share in (0, 0.5, 0.95, 1)] == [0, 50, 95, 100]
    assert percentile([1.0, 2.0], 0.5) == 1.5
    assert percentile([3.0], 0.99) == 3.0


@pytest.mark.parametrize("letters_in_a_token", [1, 3, 4])
def test_prompts_of_an_exact_length_with_any_tokenizer(letters_in_a_token: int) -> None:
    def count(text: str) -> int:
        return 9 + sum(-(-len(word) // letters_in_a_token) for word in text.split())

    made = make_prompts(count, 64, 5)
    assert made.exact
    assert [count(text) for text in made.texts] == [64] * 5
    assert len(set(made.texts)) == 5


def test_prompts_have_an_approximate_length_without_a_token_count() -> None:
    made = make_prompts(lambda _: None, 64, 2)
    assert not made.exact
    assert [len(text.split()) for text in made.texts] == [64, 64]


def test_random_png_is_a_valid_image() -> None:
    from io import BytesIO  # noqa: PLC0415

    from PIL import Image  # noqa: PLC0415

    with Image.open(BytesIO(random_png(random.Random(1)))) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (256, 256))


def test_the_plot_has_a_legend() -> None:
    drawn = plot({"ours": [(1, 10.0), (4, 30.0)], "theirs": [(1, 8.0), (4, 20.0)]}, "tokens/s")
    assert "ours" in drawn
    assert "theirs" in drawn
    assert "\x1b" not in drawn
