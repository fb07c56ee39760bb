"""What any client expects, as functions that run with the server and with ``mutants``."""

import copy
import json
import re
from collections.abc import Callable
from typing import Any

from jsonschema import Draft202012Validator

from response_streams import read_response, response_essence
from server import CHAT, COMPLETIONS, Api
from streams import alike, essence, merge, read

Scenario = Callable[[Api], None]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2, 3]}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
FORMATS = copy.deepcopy(Draft202012Validator.FORMAT_CHECKER)


@FORMATS.checks("date-time")  # type: ignore[untyped-decorator]
def _is_date_time(value: object) -> bool:
    """By the grammar of RFC 3339, in which any minute may have a leap second."""
    plain = re.sub(r"(:\d\d):60", r"\1:59", value) if isinstance(value, str) else value
    return bool(Draft202012Validator.FORMAT_CHECKER.conforms(plain, "date-time"))


def valid(text: str, schema: Any) -> bool:
    """Whether a text is JSON that is valid for a schema."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError):
        return False
    return bool(Draft202012Validator(schema, format_checker=FORMATS).is_valid(value))


GREEDY = {"temperature": 0, "max_tokens": 12}


def chat_complete(api: Api) -> None:
    answer = api.chat().json
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] > 0


def chat_stream(api: Api) -> None:
    api.chat(stream=True)


def chat_stream_usage(api: Api) -> None:
    api.chat(stream=True, stream_options={"include_usage": True})


def _check_stream_equals_complete(api: Api, path: str, **body: Any) -> None:
    """The merged stream equals the complete response."""
    ask = api.chat if path == CHAT else api.complete
    whole = ask(**GREEDY, **body).json
    streamed = ask(**GREEDY, **body, stream=True, stream_options={"include_usage": True})
    folded = merge(path, read(streamed.text))
    for usage in (whole["usage"], folded["usage"]):
        usage.pop("prompt_tokens_details", None)  # what was cached is not the same the second time
    assert alike(folded, essence(whole)), (folded, essence(whole))


def chat_stream_equals_complete(api: Api) -> None:
    _check_stream_equals_complete(api, CHAT)


def chat_stream_equals_complete_with_everything(api: Api) -> None:
    _check_stream_equals_complete(api, CHAT, n=2, seed=1, logprobs=True, top_logprobs=2, stop=["\n"])


def chat_stream_equals_complete_with_tools(api: Api) -> None:
    _check_stream_equals_complete(
        api, CHAT, tools=[WEATHER], tool_choice="required", max_completion_tokens=None
    )


def completion_complete(api: Api) -> None:
    assert api.complete().json["object"] == "text_completion"


def completion_stream(api: Api) -> None:
    api.complete(stream=True)


def completion_stream_equals_complete(api: Api) -> None:
    _check_stream_equals_complete(api, COMPLETIONS, n=2, logprobs=1, seed=1)


def completion_of_several_prompts(api: Api) -> None:
    answer = api.complete(prompt=["One", "Two"], max_tokens=2).json
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]


def response_complete(api: Api) -> None:
    assert api.respond(metadata={"a": "b"}).json["metadata"] == {"a": "b"}


def response_stream(api: Api) -> None:
    api.respond(stream=True)


def _check_response_stream_equals_complete(api: Api, **body: Any) -> None:
    whole = api.respond(temperature=0, **body).json
    streamed = read_response(api.respond(temperature=0, stream=True, **body).text)
    one, other = response_essence(whole), response_essence(streamed[-1]["response"])
    assert alike(one, other), (one, other)


def response_stream_equals_complete(api: Api) -> None:
    include = ["message.output_text.logprobs"]
    _check_response_stream_equals_complete(api, include=include, top_logprobs=2)


def response_call(api: Api) -> None:
    tool = {"type": "function", **WEATHER["function"]}
    hosted = [{"type": "web_search"}, {"type": "image_generation"}]
    wanted: Any = {"tools": [*hosted, tool], "tool_choice": "required", "temperature": 1.5, "seed": 1}
    for streamed in (False, True):
        exchange = api.respond(**wanted, max_output_tokens=200, stream=streamed)
        answer = read_response(exchange.text)[-1]["response"] if streamed else exchange.json
        calls = [item for item in answer["output"] if item["type"] == "function_call"]
        assert calls
        assert all(valid(call["arguments"], tool["parameters"]) for call in calls)
        assert [each.get("name") for each in answer["tools"]] == ["get_weather"]


def response_custom_call(api: Api) -> None:
    form = {"type": "grammar", "syntax": "regex", "definition": "[a-c]{2,4}"}
    tool = {"type": "custom", "name": "pick", "format": form}
    wanted: Any = {"tools": [tool], "tool_choice": {"type": "custom", "name": "pick"}, "temperature": 1.5}
    for streamed in (False, True):
        exchange = api.respond(**wanted, max_output_tokens=200, stream=streamed)
        answer = read_response(exchange.text)[-1]["response"] if streamed else exchange.json
        (call,) = answer["output"]
        assert (call["type"], call["name"]) == ("custom_tool_call", "pick")
        assert re.fullmatch("[a-c]{2,4}", call["input"])


def response_is_incomplete(api: Api) -> None:
    answer = api.respond(max_output_tokens=3, ignore_eos=True).json
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert answer["usage"]["output_tokens"] == 3


def response_bad_value(api: Api) -> None:
    assert api.respond(400, temperature=5).json["error"]["param"] == "temperature"
    assert api.respond(404, model="nobody").json["error"]["code"] == "model_not_found"


def models(api: Api) -> None:
    names = [model["id"] for model in api.get("/v1/models", "/v1/models").json["data"]]
    assert api.model in names
    assert api.get(f"/v1/models/{api.model}", "/v1/models/{model}").json["id"] == api.model


def unknown_model(api: Api) -> None:
    error = api.chat(404, model="nobody").json["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    error = api.get("/v1/models/nobody", "/v1/models/{model}", 404).json["error"]
    assert error["code"] == "model_not_found"


def bad_value(api: Api) -> None:
    assert api.chat(400, temperature=5).json["error"]["param"] == "temperature"
    assert api.chat(400, messages=[]).json["error"]["param"] == "messages"


def choices(api: Api) -> None:
    one = api.chat(temperature=1, seed=1).json
    answer = api.chat(temperature=1, seed=1, n=4).json
    texts = {choice["message"]["content"] for choice in answer["choices"]}
    assert len(texts) > 1
    assert answer["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"], "the prompt counts once"


def logprobs(api: Api) -> None:
    choice = api.chat(logprobs=True, top_logprobs=3, temperature=0).json["choices"][0]
    tokens = choice["logprobs"]["content"]
    for each in tokens:
        best = each["top_logprobs"][0]
        assert each["token"] == best["token"], "greedy takes the likeliest"
        assert each["logprob"] == best["logprob"] <= 0
        assert len(each["top_logprobs"]) == 3
    spoken = b"".join(bytes(each["bytes"] or ()) for each in tokens)
    assert spoken.decode(errors="replace") == choice["message"]["content"]


def length(api: Api) -> None:
    answer = api.chat(max_tokens=3, ignore_eos=True).json
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def required_tool(api: Api) -> None:
    answer = api.chat(tools=[WEATHER], tool_choice="required", temperature=1.5, seed=1, max_tokens=200).json
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    for call in choice["message"]["tool_calls"]:
        assert call["function"]["name"] == "get_weather"
        assert valid(call["function"]["arguments"], WEATHER["function"]["parameters"])


def seeded(api: Api) -> None:
    texts = {api.chat(temperature=1.5, seed=7).json["choices"][0]["message"]["content"] for _ in range(3)}
    assert len(texts) == 1


SCENARIOS: tuple[Scenario, ...] = (
    chat_complete,
    chat_stream,
    chat_stream_usage,
    chat_stream_equals_complete,
    chat_stream_equals_complete_with_everything,
    chat_stream_equals_complete_with_tools,
    completion_complete,
    completion_stream,
    completion_stream_equals_complete,
    completion_of_several_prompts,
    response_complete,
    response_stream,
    response_stream_equals_complete,
    response_call,
    response_custom_call,
    response_is_incomplete,
    response_bad_value,
    models,
    unknown_model,
    bad_value,
    choices,
    logprobs,
    length,
    required_tool,
    seeded,
)
