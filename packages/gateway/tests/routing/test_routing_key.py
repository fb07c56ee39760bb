"""Which requests count as one conversation."""

from typing import Any

import pytest

from gemma_gateway.routing.routing_key import estimated_tokens, routing_key
from gemma_wire import AudioPart, ImagePart, Message, Options, Request, TextPart

SYSTEM = Message(role="system", content="Be kind.")
USER = Message(role="user", content="Hello")
REPLY = Message(role="assistant", content="Hi!")
MORE = Message(role="user", content="And now?")
IMAGE = Message(role="user", content=(TextPart(text="What is it?"), ImagePart()))
AUDIO = Message(role="user", content=(AudioPart(),))


def key(*messages: Message, **fields: Any) -> bytes:
    return routing_key(Request(messages=messages, **fields))


def test_later_turns_of_a_conversation_have_its_key() -> None:
    assert key(SYSTEM, USER) == key(SYSTEM, USER, REPLY, MORE) == key(SYSTEM, USER, max_tokens=7)


def test_an_image_of_a_later_turn_does_not_change_the_key() -> None:
    first = key(IMAGE, images=(b"cat",))
    assert first == key(IMAGE, REPLY, IMAGE, images=(b"cat", b"dog"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (key(SYSTEM, USER), key(SYSTEM, MORE)),
        (key(SYSTEM, USER), key(USER)),
        (key(USER), key(Message(role="user", content=(TextPart(text="Hell"), TextPart(text="o"))))),
        (key(IMAGE, images=(b"cat",)), key(IMAGE, images=(b"dog",))),
        (key(AUDIO, audio=(b"cat",)), key(AUDIO, audio=(b"dog",))),
        (key(USER), key(USER, options=Options(cache_salt="a"))),
        (key(USER), key(USER, options=Options(model="E2B"))),
        (routing_key(Request(prompt="a")), routing_key(Request(prompt="b"))),
        (routing_key(Request(prompt="a")), routing_key(Request(options=Options(prompt_token_ids=(1,))))),
    ],
)
def test_what_the_prefix_cache_distinguishes_has_different_keys(one: bytes, other: bytes) -> None:
    assert one != other


def test_the_key_of_a_very_long_message_costs_little() -> None:
    long = "x" * 2**23
    assert key(Message(role="user", content=long)) != key(Message(role="user", content=f"{long}x"))


def test_surrogates_have_a_key() -> None:
    assert len(key(Message(role="user", content="\ud800"))) == 16


def test_tokens_are_estimated_from_characters_files_and_the_response() -> None:
    asked = Request(messages=(IMAGE,), images=(b"cat",), max_tokens=100, options=Options(n=2))
    assert 456 <= estimated_tokens(asked) < 500
    assert estimated_tokens(Request(prompt="", max_tokens=10**6)) == 1024
