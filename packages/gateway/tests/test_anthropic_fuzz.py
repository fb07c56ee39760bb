"""Random requests of the Messages API: each gets a message, or an error that blames the client."""

import asyncio
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from packages.gateway.tests.anthropic_helpers import assert_anthropic_error, read_events, read_message
from packages.gateway.tests.conftest import FakeEngine, gateway
from pydantic import BaseModel

from gemma_gateway.anthropic.schema import CountTokensRequest, MessagesRequest

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(["gemma3n", "toolu_1", "toolu_2", "look", "aGk=", "data:;base64,aGk=", "", "\ud7ff"])
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    str: NAMES,
    int: st.integers(0, 60),
    float: st.floats(0, 1),
    bool: st.booleans(),
    type(None): st.none(),
    dict: st.fixed_dictionaries({}, optional={"type": st.just("object"), "x": ANYTHING}),
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """JSON that mostly has the shape that a schema asks for."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return values(inner[0])
    if origin is Literal:
        return st.sampled_from(inner)
    if origin in (Union, UnionType):
        return st.one_of([values(member) for member in inner])
    if origin is list:
        return st.lists(values(inner[0]), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return objects(annotation)
    return SIMPLE.get(origin or annotation, ANYTHING)


def objects(schema: type[BaseModel]) -> st.SearchStrategy[Any]:
    """An object with all required fields and at most three others; one in eight is not what it should be."""
    fields = {field.alias or name: field for name, field in schema.model_fields.items()}
    known = {name: values(field.annotation) for name, field in fields.items()}
    if "model" in known:
        known["model"] = st.sampled_from(["gemma3n"] * 7 + ["nobody"])
    required = [name for name, field in fields.items() if field.is_required()]
    others = st.lists(
        st.sampled_from([name for name in fields if name not in required] or required), max_size=3
    )
    valid: st.SearchStrategy[Any] = others.flatmap(
        lambda names: st.fixed_dictionaries({n: known[n] for n in [*required, *names]})
    )
    return st.integers(0, 7).flatmap(lambda one: valid if one else ANYTHING)


@pytest.mark.parametrize(
    ("path", "schema"),
    [("/v1/messages", MessagesRequest), ("/v1/messages/count_tokens", CountTokensRequest)],
)
def test_any_request(path: str, schema: type[BaseModel]) -> None:
    statuses = set()

    @settings(
        max_examples=20,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],  # each example is many requests, so shrinking would take minutes
        suppress_health_check=[*HealthCheck],
    )
    @given(st.lists(objects(schema), min_size=10, max_size=10))
    def check(bodies: list[Any]) -> None:
        statuses.update(asyncio.run(post_all(path, bodies)))

    check()
    assert {200, 400} <= statuses


async def post_all(path: str, bodies: list[Any]) -> set[int]:
    """The statuses of the responses, each of which is checked."""
    statuses = set()
    async with gateway(FakeEngine()) as client:
        for body in bodies:
            response = await client.post(path, json=body)
            statuses.add(response.status_code)
            if response.status_code != 200:
                kinds = {400: "invalid_request_error", 404: "not_found_error"}
                assert_anthropic_error(response, response.status_code, kinds[response.status_code])
            elif path == "/v1/messages":
                _ = read_events(response) if body.get("stream") else read_message(response)
    return statuses
