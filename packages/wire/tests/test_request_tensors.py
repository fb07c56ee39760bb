"""Requests from the tensors of any client of Triton."""

import base64
import json
import re
from urllib.parse import quote

import numpy as np
import pytest
from pydantic import ValidationError

from gemma_wire import (
    InvalidRequest,
    Options,
    Request,
    read_parameters,
    tensors,
)
from gemma_wire.tensors import pack

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def _from(**values: object) -> Request:
    arrays = {
        name: pack(tensors.INPUTS_BY_NAME[name], value if isinstance(value, list) else [value])
        for name, value in values.items()
    }
    return Request.from_tensors(arrays)


def test_files_may_come_as_bytes_base64_or_data_uri() -> None:
    encoded = base64.b64encode(PNG)
    request = _from(prompt="x", images=[PNG, encoded, b"data:image/png;base64," + encoded])
    assert request.images == (PNG, PNG, PNG)


@pytest.mark.parametrize("before", [b"", b" DATA:;name=a.png;base64,\n"])
def test_base64_may_have_any_of_its_forms(before: bytes) -> None:
    lines = b"\r\n".join(re.findall(rb".{1,76}", base64.b64encode(PNG)))
    bare = base64.urlsafe_b64encode(PNG + b"\0").rstrip(b"=")
    escaped = quote(base64.b64encode(PNG)).encode()
    request = _from(prompt="x", images=[before + form for form in (lines, bare, escaped)])
    assert request.images == (PNG, PNG + b"\0", PNG)


def test_data_that_only_begins_like_base64_is_a_file() -> None:
    """Linear in its length, too: a pattern that backtracks would not come to an end here."""
    blanks = b"GIF89a" + b" " * 10**6 + b","
    assert _from(prompt="x", images=[blanks]).images == (blanks,)


def test_arrays_may_have_any_shape() -> None:
    arrays = {
        "prompt": pack(tensors.PROMPT, ["x"]).reshape(1, 1),
        "max_tokens": np.array([[3]], dtype=np.int32),
    }
    assert Request.from_tensors(arrays) == Request(prompt="x", max_tokens=3)


@pytest.mark.parametrize(
    ("values", "field", "says"),
    [
        ({"prompt": "x", "max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"prompt": "x", "temperature": 2.5}, "temperature", "less than or equal to 2"),
        ({"prompt": "x", "temperature": float("nan")}, "temperature", "finite number"),
        ({"prompt": "x", "top_p": 0.0}, "top_p", "greater than 0"),
        ({"prompt": ["x", "y"]}, "prompt", "has 2 values"),
        ({"prompt": b"\xff"}, "prompt", "not UTF-8"),
        ({"prompt": "x", "options": "[1]"}, "options", "should be an object"),
        ({"prompt": "x", "options": '{"frobnicate": 1}'}, "options.frobnicate", "not a known field"),
        ({"prompt": "x", "options": '{"stop": [""]}'}, "options.stop[0]", "at least 1 character"),
        ({"messages": '[{"role": "wizard", "content": "x"}]'}, "messages[0].role", "'user'"),
        ({"messages": "{"}, "messages", "invalid JSON"),
        ({"prompt": "x", "messages": '[{"role": "user", "content": "x"}]'}, "", "exactly one"),
        ({"messages": "[]"}, "messages", "at least 1"),
        ({"prompt": "x", "options": '{"op": "describe"}'}, "", "takes no prompt"),
        ({"prompt": "x", "options": '{"seed": "7"}'}, "options.seed", "integer"),
        ({"prompt": "x", "options": '{"ignore_eos": 1}'}, "options.ignore_eos", "boolean"),
        ({"max_tokens": 1}, "", "exactly one"),
        ({"options": '{"op": "detokenize"}'}, "", "op=detokenize takes prompt_token_ids, not nothing"),
        ({"prompt": "x", "options": '{"tools": [{"name": "f"}]}'}, "", "tools need messages"),
        ({"prompt": "x", "options": '{"tools": [{"name": "no space"}]}'}, "options.tools[0].name", "match"),
        ({"prompt": "x", "options": '{"logit_bias": {"5": 101}}'}, "options.logit_bias.5", "100"),
        ({"prompt": "x", "options": '{"prompt_logprobs": true}'}, "options.prompt_logprobs", "integer"),
        ({"prompt": "x", "options": '{"continue_final_message": true}'}, "", "needs a last message"),
        ({"messages": '[{"role": "tool", "content": "x"}]'}, "messages[0]", "is required"),
        ({"messages": '[{"role": "user", "tool_calls": [{}]}]'}, "messages[0].tool_calls[0].id", "needed"),
    ],
)  # fmt: skip
def test_bad_input_names_the_field_and_the_limit(values: dict[str, object], field: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _from(**values)
    assert caught.value.field == field
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("last", "options", "says"),
    [
        ({"role": "user", "content": "x"}, {}, "of the assistant"),
        ({"role": "assistant", "tool_calls": [{"id": "1", "name": "f", "arguments": "{}"}]}, {}, "calls"),
        ({"role": "assistant", "content": "x"}, {"add_generation_prompt": True}, "exclude each other"),
    ],
)
def test_invalid_continue_final_message_is_refused(
    last: dict[str, object], options: dict[str, object], says: str
) -> None:
    asked = json.dumps({"continue_final_message": True} | options)
    with pytest.raises(InvalidRequest, match=says):
        _from(messages=json.dumps([last]), options=asked)


def test_prompt_logprobs_false_is_a_noop() -> None:
    assert _from(prompt="x", options='{"prompt_logprobs": false}').options.prompt_logprobs is None


def members(count: int) -> str:
    return "{" + ",".join(f'"{i}":1' for i in range(count)) + "}"


SAID = '{"role":"user","content":"a"}'


@pytest.mark.parametrize(
    ("values", "field", "says"),
    [
        ({"messages": f"[{','.join([SAID] * 2049)}]"}, "messages", "has 2,049 items; 2,048 are allowed"),
        ({"messages": f"[{','.join([SAID] * 40_000)}]"}, "messages", "more than 65,536 strings"),
        (
            {"messages": f'[{{"role":"user","content":[{",".join(["{}"] * 5000)}]}}]'},
            "messages",
            "has 5,000 parts of content",
        ),
        ({"messages": "[" * 100_000}, "messages", "more than 128 levels of nesting"),
        ({"messages": f"[{members(300)}]"}, "messages[0]", "300 keys"),
        ({"prompt": "x", "options": f"{members(300)}"}, "options", "has 300 keys"),
        (
            {"prompt": "x", "options": f'{{"logit_bias":{members(1025)}}}'},
            "options.logit_bias",
            "has 1,025 items",
        ),
        (
            {"prompt": "x", "options": f'{{"stop_token_ids":[{"1," * 300_000}1]}}'},
            "options",
            "more than 262,144 values",
        ),
        ({"prompt": ["x"] * 1000}, "prompt", "has 1,000 values, expected 1"),
        ({"prompt": "x", "images": [b"x"] * 257}, "images", "has 257 files; the limit is 256"),
        ({"prompt": "x" * (64 * 2**20 + 1)}, "prompt", "the limit is 67,108,864"),
    ],
    ids=range(11),
)
def test_an_error_names_the_field_and_the_limit(values: dict[str, object], field: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        _from(**values)
    assert caught.value.field == field


def test_parameters_are_read_within_limits() -> None:
    assert read_parameters("") == {}
    assert read_parameters('{"top_k": 5}') == {"top_k": 5}
    for text in ('{"a":"%s"}' % ("x" * 2**20), "[" * 1000):
        with pytest.raises(InvalidRequest, match=r"limit|more than 128") as caught:
            read_parameters(text)
        assert caught.value.field == "parameters"


def test_parameters_are_options_unless_they_are_tritons_own() -> None:
    arrays = {"prompt": pack(tensors.PROMPT, ["x"])}
    request = Request.from_tensors(
        arrays, {"seed": 7, "stop": "end", "triton_enable_empty_final_response": True}
    )
    assert request.options == Options(seed=7, stop=("end",))


def test_naming_an_option_twice_is_an_error() -> None:
    arrays = {
        "prompt": pack(tensors.PROMPT, ["x"]),
        "options": pack(tensors.OPTIONS, [json.dumps({"seed": 1})]),
    }
    with pytest.raises(InvalidRequest, match="both") as caught:
        Request.from_tensors(arrays, {"seed": 1})
    assert caught.value.field == "seed"


def test_an_unknown_input_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Request.from_tensors({"nonsense": pack(tensors.PROMPT, ["x"])})
    assert caught.value.field == "nonsense"


@pytest.mark.parametrize(
    "name",
    [
        "min_p",
        "repetition_penalty",
        "frequency_penalty",
        "presence_penalty",
        "top_k",
        "seed",
        "min_tokens",
        "n",
        "logprobs",
    ],
)
@pytest.mark.parametrize("number", ["1e308", "-1e308", "1e400", "1" * 400, "true", '"1"', '"NaN"', "NaN"])
def test_extreme_numbers_among_the_options(name: str, number: str) -> None:
    """A plain Triton client may send anything; what is taken is in the field's range and a number."""
    text = f'{{"{name}": {number}}}'.encode()
    asked = {"prompt": pack(tensors.PROMPT, ["x"]), "options": pack(tensors.OPTIONS, [text])}
    with pytest.raises(InvalidRequest) as caught:
        Request.from_tensors(asked)
    assert caught.value.field.startswith("options")


@pytest.mark.parametrize("value", [1e-300, 0, 0.00999, 10.01, -1])
def test_a_repetition_penalty_that_would_overflow_logits_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="repetition_penalty"):
        Options(repetition_penalty=value)


def test_integers_may_have_a_decimal_point() -> None:
    options = Options.model_validate({"top_k": 5.0, "seed": -0.0, "stop_token_ids": [7.0]})
    assert (options.top_k, options.seed, options.stop_token_ids) == (5, 0, (7,))
    with pytest.raises(ValidationError):
        Options.model_validate({"top_k": 5.5})
