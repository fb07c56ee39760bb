import ast
import json
import shlex
from typing import Any

import pytest

from gemma_playground.media import Refused
from gemma_playground.request import PANEL, panel, request, snippets, touched

SAID = [{"role": "user", "content": "It's $HOME `x` </script>"}]


def values(**told: Any) -> list[Any]:
    return panel(told)


def test_what_is_left_alone_is_not_sent() -> None:
    assert request(SAID, values(model="m")) == {"model": "m", "messages": SAID}
    assert touched(values()) == {}


def test_what_is_set_is_sent() -> None:
    told = {
        "model": "m", "system": "Be brief", "temperature": "0", "top_p": 0.5, "max_tokens": "7", "seed": "1",
        "stop": "a\nb", "frequency_penalty": "1", "presence_penalty": "-1", "response_format": "json_schema",
        "json_schema": '{"type": "object"}', "tools": '{"type": "function"}', "logprobs": "True",
    }  # fmt: skip
    assert set(told) == set(PANEL)
    sent = request(SAID, values(**told))
    assert sent["messages"][0] == {"role": "system", "content": "Be brief"}
    assert (sent["temperature"], sent["top_p"], sent["max_tokens"], sent["stop"]) == (0, 0.5, 7, ["a", "b"])
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert sent["tools"] == [{"type": "function"}]
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 5)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"temperature": "warm"}, "Temperature: 'warm' is not a number."),
        ({"seed": "NaN"}, "Seed: 'NaN' is not a number."),
        ({"tools": "{"}, "Tools: this is not JSON"),
        ({"response_format": "json_schema", "json_schema": "{"}, "JSON schema: this is not JSON"),
    ],
)
def test_what_cannot_be_sent_is_refused(told: dict[str, str], sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        request(SAID, values(**told))


@pytest.mark.parametrize("found", [None, [], "x", {"model": None, "response_format": "xml", "other": 1}])
def test_settings_from_anywhere_are_a_panel(found: Any) -> None:
    assert touched(panel(found)) == {}


def test_snippets_are_the_request_and_hold_no_key() -> None:
    sent = request(SAID, values(model="m", logprobs=True))
    curl, python, script = snippets(sent, "http://127.0.0.1:1/v1")
    command, _, body = curl.partition("<<'REQUEST'\n")
    assert json.loads(body.removesuffix("\nREQUEST")) == {**sent, "stream": True}
    assert shlex.split(command)[2] == "http://127.0.0.1:1/v1/chat/completions"
    assert "Authorization: Bearer $OPENAI_API_KEY" in command
    ask = next(each for each in ast.parse(python).body if isinstance(each, ast.Assign) and each.lineno > 4)
    assert ast.literal_eval(ask.value) == sent
    assert "process.env.OPENAI_API_KEY" in script
