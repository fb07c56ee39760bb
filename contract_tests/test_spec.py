"""The contract is exactly OpenAI's document with the deviations, and the server fulfils it."""

import copy
import re
from collections.abc import Iterator

import pytest
from jsonschema import Draft202012Validator

from deviations import DEVIATIONS
from overlay import Deviation, Shown, Stale, differences, drop, put
from server import CHAT, COMPLETIONS, HI, RESPONSES, Api
from spec import contract, official, schema_problems

SHOWN = [
    pytest.param(deviation, shown, id=f"{deviation.at[0].rpartition('/')[2]}-{index}-{number}")
    for index, deviation in enumerate(DEVIATIONS)
    for number, shown in enumerate(deviation.shown)
]
PLAIN = {
    CHAT: {"messages": HI, "max_tokens": 4},
    COMPLETIONS: {"prompt": "Hi", "max_tokens": 4},
    RESPONSES: {"input": "Hi", "max_output_tokens": 4},
}
REQUESTS = {
    CHAT: "CreateChatCompletionRequest",
    COMPLETIONS: "CreateCompletionRequest",
    RESPONSES: "CreateResponse",
}


def test_every_deviation_is_needed_and_has_a_reason() -> None:
    document = copy.deepcopy(official())
    for deviation in DEVIATIONS:
        assert deviation.why.endswith((".", "!")), deviation.at
        deviation.apply(document)


def test_a_superfluous_deviation_is_detected() -> None:
    document = copy.deepcopy(official())
    model = "/components/schemas/Model/properties/id"
    with pytest.raises(Stale):
        put(model, {"type": "string"}, "so it is").apply(document)
    with pytest.raises(Stale):
        drop(f"{model}/gone", "it is gone").apply(document)


def test_every_difference_is_listed() -> None:
    places = [_pattern(place) for deviation in DEVIATIONS for place in deviation.at]
    unlisted = [
        at for at in differences(official(), contract()) if not any(place.match(at) for place in places)
    ]
    assert unlisted == []


def _pattern(place: str) -> re.Pattern[str]:
    parts = (
        ".*" if part == "**" else "[^/]+" if part == "*" else re.escape(part) for part in place.split("/")
    )
    return re.compile("/".join(parts) + "(/|$)")


def test_an_unlisted_difference_is_detected() -> None:
    changed = copy.deepcopy(contract())
    changed["components"]["schemas"]["Model"]["properties"]["id"] = {"type": "integer"}
    assert list(differences(contract(), changed)) == ["/components/schemas/Model/properties/id/type"]


def test_every_schema_is_valid() -> None:
    for schema in contract()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(("deviation", "shown"), SHOWN)
def test_the_server_behaves_as_the_deviation_says(api: Api, deviation: Deviation, shown: Shown) -> None:
    """Refused by name where the document is narrower than OpenAI's, served where it is wider."""
    body = {**PLAIN[shown.path], **shown.body}
    mistakes = schema_problems(REQUESTS[shown.path], {"model": api.model, **body})
    if shown.param is None:
        assert not mistakes
        api.ask(shown.path, body)
    else:
        assert mistakes, "the contract allows what is shown to be refused"
        error = api.ask(shown.path, body, 400).json["error"]
        assert error["param"].startswith(shown.param), error


def _references() -> Iterator[str]:
    yield from re.findall(r"#/components/schemas/([\w-]+)", str(contract()))


def test_every_reference_can_be_resolved() -> None:
    assert set(_references()) <= set(contract()["components"]["schemas"])
