import base64
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_wire import (
    Alternative,
    ChoiceGrammar,
    Chunk,
    ContextLengthExceeded,
    EngineFailure,
    ImagePart,
    InvalidRequest,
    JsonGrammar,
    LarkGrammar,
    Message,
    ModelInfo,
    Options,
    Overloaded,
    RegexGrammar,
    Request,
    TextPart,
    Timings,
    TokenLogprob,
    Tokens,
    Tool,
    ToolCall,
    ToolCallDelta,
    Unavailable,
    Usage,
    WireError,
    tensors,
)

ROOT = Path(__file__).parents[3]
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)

text = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
schemas = st.dictionaries(text, st.booleans() | st.integers(-9, 9) | text, max_size=3)
spoken = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant"]),
    content=text
    | st.lists(st.builds(TextPart, text=text) | st.just(ImagePart()), min_size=1, max_size=3).map(tuple),
    name=st.none() | text,
)
called = st.builds(
    Message,
    role=st.just("assistant"),
    tool_calls=st.lists(st.builds(ToolCall, id=text, name=text, arguments=text), max_size=2).map(tuple),
)
told = st.builds(Message, role=st.just("tool"), content=text, tool_call_id=text)
grammars = (
    st.builds(JsonGrammar, json_schema=schemas | st.just(True))
    | st.builds(RegexGrammar, pattern=text.filter(bool))
    | st.builds(ChoiceGrammar, choices=st.lists(text.filter(bool), min_size=1, max_size=3).map(tuple))
    | st.builds(LarkGrammar, text=text.filter(bool))
)
requests = st.builds(
    Request,
    messages=st.lists(spoken | called | told, min_size=1, max_size=3).map(tuple),
    images=st.lists(st.binary(min_size=1).map(lambda tail: b"\x89" + tail), max_size=3).map(tuple),
    max_tokens=st.none() | st.integers(1, 2**31 - 1),
    temperature=st.none() | st.floats(0, 2, width=32),
    top_p=st.none() | st.floats(0, 1, exclude_min=True, width=32),
    stream=st.booleans(),
    options=st.builds(
        Options,
        seed=st.none() | st.integers(-(2**63), 2**63 - 1),
        top_k=st.none() | st.integers(0, 1000),
        stop=st.lists(text.filter(bool), max_size=4).map(tuple),
        ignore_eos=st.booleans(),
        logit_bias=st.dictionaries(st.integers(0, 2**31 - 1), st.floats(-100, 100), max_size=3),
        min_p=st.floats(0, 1),
        n=st.integers(1, 128),
        logprobs=st.none() | st.integers(0, 20),
        grammar=st.none() | grammars,
        tools=st.lists(
            st.builds(Tool, name=names, description=text, parameters=st.none() | schemas), max_size=2
        ).map(tuple),
        tool_choice=st.sampled_from(["auto", "required"]),
    ),
)


@given(requests)
def test_request_round_trip(request: Request) -> None:
    assert Request.from_tensors(request.to_tensors()) == request


seconds = st.floats(0, 9)
chunks = st.builds(
    Chunk,
    text=text,
    index=st.integers(0, 9),
    token_ids=st.lists(st.integers(0, 9), max_size=2).map(tuple),
    logprobs=st.lists(
        st.builds(
            TokenLogprob,
            logprob=st.floats(-9999, 0),
            top=st.lists(st.builds(Alternative, logprob=st.floats(-9999, 0)), max_size=2).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    tool_calls=st.lists(st.builds(ToolCallDelta, id=st.none() | text, name=st.none() | text), max_size=2).map(
        tuple
    ),
    finish_reason=st.sampled_from([None, "stop", "length", "tool_calls"]),
    usage=st.none() | st.builds(Usage),
    timings=st.none() | st.builds(Timings, queued=seconds, prefill=seconds, decode=seconds),
)


@given(chunks)
def test_chunk_round_trip(chunk: Chunk) -> None:
    assert Chunk.from_tensors(chunk.to_tensors()) == chunk


def test_tokens_round_trip() -> None:
    tokens = Tokens(token_ids=(1, 2), text="ab", pieces=("a", "b"), context_length=8)
    assert Tokens.from_tensors(tokens.to_tensors()) == tokens


def test_model_info_round_trip() -> None:
    info = ModelInfo(
        model="m",
        created=1,
        engine="reference",
        device="cpu",
        dtype="float32",
        context_length=8,
        max_num_seqs=1,
        memory_bytes=9,
        modalities=("text",),
        running=1,
    )
    assert ModelInfo.from_tensors(info.to_tensors()) == info


@given(
    st.sampled_from([InvalidRequest, ContextLengthExceeded, Overloaded, Unavailable, EngineFailure]),
    text,
    st.booleans(),
)
def test_error_round_trip(kind: type[WireError], message: str, named: bool) -> None:
    error = kind(f"broken: {message}", "messages[0].content" if named else "")
    back = WireError.from_line(error.to_line())
    assert (type(back), back.message, back.field) == (kind, error.message, error.field)


@pytest.mark.parametrize(
    "line", ["Stub process is not healthy.", "field: sentence [no_such_code]", "sentence [unavailable]", ""]
)
def test_any_other_line_is_an_engine_failure(line: str) -> None:
    back = WireError.from_line(line)
    assert isinstance(back, EngineFailure)
    assert back.message == line


def _declared(config: str, block: str) -> set[tuple[str, str, int, bool]]:
    body = re.search(rf"^{block} \[(.*?)^\]", config, re.MULTILINE | re.DOTALL)
    assert body is not None
    entries = re.findall(
        r'\{ name: "(\w+)",\s*data_type: (\w+),\s*dims: \[ (-?\d+) \](,\s*optional: true)? \}', body[1]
    )
    assert len(entries) == body[1].count("name:")
    return {(name, data_type, int(dims), bool(optional)) for name, data_type, dims, optional in entries}


def test_config_pbtxt_declares_the_same_tensors() -> None:
    config = (ROOT / "packages/model/src/gemma_model/model_repository/gemma3n/config.pbtxt").read_text(
        encoding="utf-8"
    )
    for block, declared in (("input", tensors.INPUTS), ("output", tensors.OUTPUTS)):
        expected = {(t.name, t.data_type, t.dims, t.optional) for t in declared}
        assert _declared(config, block) == expected
    assert f'name: "{tensors.MODEL}"' in config
    assert "decoupled: true" in config
    assert "max_batch_size: 0" in config


def test_every_input_is_a_field_of_the_request() -> None:
    assert set(tensors.INPUTS_BY_NAME) == set(Request.model_fields)
