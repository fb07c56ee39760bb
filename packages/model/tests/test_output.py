from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gemma_model.output import TextStream, TokenBytes

TEXTS = [
    "Hello, how are you?",
    "  two  spaces\n\n\nlines\t",
    "emoji 👩‍👩‍👧 한국어 é ẍ̂",
    '{"a": [1, 2.5]}',
    "",
]


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny / "tokenizer.json"))


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize("text", TEXTS)
def test_joined_pieces_are_the_tokenizers_own_decoding(tokenizer: Tokenizer, text: str) -> None:
    ids = _ids(tokenizer, text)
    stream = TextStream(TokenBytes(tokenizer))
    pieces = [stream.feed([token]) for token in ids] + [stream.finish()]
    assert "".join(pieces) == tokenizer.decode(ids) == text
    assert stream.tokens == len(ids)


@given(st.text(st.characters(codec="utf-8", exclude_characters="<▁"), max_size=12))
def test_no_piece_ends_within_a_character(tokenizer: Tokenizer, text: str) -> None:
    stream = TextStream(TokenBytes(tokenizer))
    pieces = [stream.feed([token]) for token in _ids(tokenizer, text)]
    assert "".join(pieces) + stream.finish() == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


def test_broken_utf8_ends_as_a_replacement_character(tokenizer: Tokenizer) -> None:
    stream = TextStream(TokenBytes(tokenizer))
    assert stream.feed(_ids(tokenizer, "😀")[:2]) == ""
    assert stream.finish() == "\ufffd"


def test_control_tokens_are_silent_and_counted(tokenizer: Tokenizer) -> None:
    stream = TextStream(TokenBytes(tokenizer))
    assert stream.feed([*_ids(tokenizer, "<end_of_turn>"), 10**6]) == ""
    assert stream.tokens == 2


@given(text=st.text("abc ", max_size=30), stops=st.lists(st.text("abc ", min_size=1, max_size=4), max_size=4))
def test_stop_strings_cut_at_the_first_to_be_complete(
    tokenizer: Tokenizer, text: str, stops: list[str]
) -> None:
    stream = TextStream(TokenBytes(tokenizer), stops)
    out = ""
    for token in _ids(tokenizer, text):
        out += stream.feed([token])
        assert not any(stop in out for stop in stops)
    out += stream.finish()
    if stream.stopped:
        assert any(text.startswith(out + stop) for stop in stops)
        assert not any(stop in out for stop in stops)
    else:
        assert out == text
        assert not any(stop in text for stop in stops)


def test_no_more_is_held_back_than_may_become_a_stop_string(tokenizer: Tokenizer) -> None:
    stream = TextStream(TokenBytes(tokenizer), ["END!"])
    fed = [stream.feed(_ids(tokenizer, letter)) for letter in "ENxEND?"]
    assert fed == ["", "", "ENx", "", "", "", "END?"]


def test_tokens_after_a_stop_string_are_ignored(tokenizer: Tokenizer) -> None:
    stream = TextStream(TokenBytes(tokenizer), ["b"])
    letters = [_ids(tokenizer, letter)[0] for letter in "abcd"]
    assert stream.feed(letters) == "a"
    assert (stream.stopped, stream.tokens, stream.feed(letters), stream.finish()) == (True, 2, "", "")
