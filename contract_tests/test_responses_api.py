"""The Responses API by the OpenAI SDK, and a request with the shape of a coding agent's."""

from typing import Any

import openai
import pytest

from codex_request import SHELL, codex_request
from response_streams import read_response
from scenarios import WEATHER, valid
from server import RESPONSES, Api, Server
from test_sdk import Forecast

WILD: Any = {"temperature": 1.5, "max_output_tokens": 300, "extra_body": {"seed": 1}}
TOOL: Any = {"type": "function", "strict": False, **WEATHER["function"]}


def test_a_coding_agents_request(api: Api) -> None:
    body = {**codex_request(api.model), "max_output_tokens": 16}
    response = read_response(api.ask(RESPONSES, body).text)[-1]["response"]
    assert [tool["name"] for tool in response["tools"]] == [
        "shell",
        "update_plan",
        "view_image",
        "apply_patch",
    ]
    assert response["usage"]["input_tokens"] > 500
    assert response["store"] is False


def test_a_coding_agents_call(api: Api) -> None:
    choice = {"type": "function", "name": "shell"}
    body = {**codex_request(api.model), "tool_choice": choice, "max_output_tokens": 300, "seed": 1}
    (call,) = read_response(api.ask(RESPONSES, body).text)[-1]["response"]["output"]
    assert call["type"] == "function_call"
    assert valid(call["arguments"], SHELL["parameters"])


def test_create_and_stream_are_the_same(client: Any, server: Server) -> None:
    said = {"structured_outputs": {"choice": ["It rains, and the sun shines."]}}
    options: Any = {"model": server.model, "input": "Hi", "temperature": 0, "extra_body": said}
    whole = client.responses.create(**options)
    with client.responses.stream(**options) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert whole.output_text == final.output_text == "".join(deltas)
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_parse_returns_an_object(client: Any, server: Server) -> None:
    answer = client.responses.parse(model=server.model, input="Hi", text_format=Forecast, **WILD)
    assert isinstance(answer.output_parsed, Forecast)


def test_a_tool_loop(client: Any, server: Server) -> None:
    """The output of a response is sent back unchanged, with the results of its calls."""
    items: list[Any] = [{"role": "user", "content": "The weather in Paris?"}]
    answer = client.responses.create(
        model=server.model, input=items, tools=[TOOL], tool_choice="required", **WILD
    )
    calls = [item for item in answer.output if item.type == "function_call"]
    assert calls
    items += answer.output
    items += [{"type": "function_call_output", "call_id": call.call_id, "output": "21"} for call in calls]
    said = {"structured_outputs": {"choice": ["It is 21 degrees."]}}
    final = client.responses.create(
        model=server.model, input=items, tools=[TOOL], tool_choice="none", extra_body=said
    )
    assert final.output_text == "It is 21 degrees."


@pytest.mark.parametrize(
    ("body", "error", "code"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found"),
        ({"temperature": 3}, openai.BadRequestError, "decimal_above_max_value"),
        ({"input": "~" * 5000}, openai.BadRequestError, "context_length_exceeded"),
        ({"previous_response_id": "resp_1"}, openai.BadRequestError, "unsupported_parameter"),
    ],
)
def test_exceptions(client: Any, server: Server, body: Any, error: Any, code: str) -> None:
    with pytest.raises(error) as caught:
        client.responses.create(**{"model": server.model, "input": "Hi", "max_output_tokens": 2, **body})
    assert caught.value.code == code
