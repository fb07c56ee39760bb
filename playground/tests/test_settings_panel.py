import ast
import json
import shlex
from typing import Any

import pytest

from gemma_playground.settings_panel import FIELDS, build_request, code_snippets, non_empty, panel_values

SAID = [{"role": "user", "content": "It's $HOME `x` </script>"}]


def panel(**told: Any) -> list[Any]:
    """The values of a panel; without a model unless one is given."""
    model, *rest = panel_values(told)
    return [model if isinstance(model, str) else None, *rest]


def test_empty_fields_are_not_sent() -> None:
    assert build_request(SAID, panel(model="m")) == {"model": "m", "messages": SAID, "stream": True}
    assert non_empty(panel()) == {}


def test_fields_that_are_set_are_sent() -> None:
    told = {
        "model": "m", "system": "Be brief", "temperature": "0", "top_p": 0.5, "max_tokens": "7", "seed": "1",
        "stop": "a\nb", "frequency_penalty": "1", "presence_penalty": "-1", "response_format": "json_schema",
        "json_schema": '{"type": "object"}', "tools": '{"type": "function"}', "logprobs": "True",
    }  # fmt: skip
    assert set(told) == set(FIELDS)
    sent = build_request(SAID, panel(**told))
    assert sent["messages"][0] == {"role": "system", "content": "Be brief"}
    assert (sent["temperature"], sent["top_p"], sent["max_tokens"], sent["stop"]) == (0, 0.5, 7, ["a", "b"])
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert sent["tools"] == [{"type": "function"}]
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 5)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"temperature": "warm"}, "Temperature: 'warm' is not JSON"),
        ({"seed": "NaN"}, "Seed: 'NaN' is not JSON"),
        ({"tools": "{"}, "Tools: '{' is not JSON"),
        ({"response_format": "json_schema", "json_schema": "{"}, "Json schema: '{' is not JSON"),
    ],
)
def test_invalid_fields_are_refused(told: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_request(SAID, panel(**told))


@pytest.mark.parametrize("found", [None, [], "x", {"model": None, "other": 1}])
def test_settings_from_untrusted_sources_become_panel_values(found: Any) -> None:
    assert non_empty([None, *panel_values(found)[1:]]) == {}


def test_snippets_contain_the_request_and_no_key() -> None:
    sent = build_request(SAID, panel(model="m", logprobs=True))
    curl, python, script = code_snippets(sent, "http://127.0.0.1:1/v1")
    command, _, body = curl.partition("<<'END'\n")
    assert json.loads(body.removesuffix("\nEND")) == sent
    assert shlex.split(command)[2] == "http://127.0.0.1:1/v1/chat/completions"
    assert "Authorization: Bearer $OPENAI_API_KEY" in command
    ask = next(each for each in ast.parse(python).body if isinstance(each, ast.Assign) and each.lineno > 4)
    assert ast.literal_eval(ask.value) == sent
    assert "process.env.OPENAI_API_KEY" in script
