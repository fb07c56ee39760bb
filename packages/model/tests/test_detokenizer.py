from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gemma_model.detokenizer import DetokenizedToken, Detokenizer, TextDelta, TokenBytes
from gemma_model.engine_types import PositionLogprobs

FIRST_BYTE = 17
"""The tiny tokenizer's ``<0x00>``."""
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
    stream = Detokenizer(TokenBytes(tokenizer))
    pieces = [stream.feed([token]).text for token in ids] + [stream.finish().text]
    assert "".join(pieces) == tokenizer.decode(ids) == text
    assert stream.tokens == len(ids)


@given(st.text(st.characters(codec="utf-8", exclude_characters="<▁"), max_size=12))
def test_no_piece_ends_within_a_character(tokenizer: Tokenizer, text: str) -> None:
    stream = Detokenizer(TokenBytes(tokenizer))
    pieces = [stream.feed([token]).text for token in _ids(tokenizer, text)]
    assert "".join(pieces) + stream.finish().text == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


def test_broken_utf8_ends_as_a_replacement_character(tokenizer: Tokenizer) -> None:
    stream = Detokenizer(TokenBytes(tokenizer))
    assert stream.feed(_ids(tokenizer, "😀")[:2]) == TextDelta()
    rest = stream.finish()
    assert rest.text == "\ufffd"
    assert b"".join(token.data for token in rest.tokens) == "😀".encode()[:2]


def test_control_tokens_are_silent_and_counted(tokenizer: Tokenizer) -> None:
    stream = Detokenizer(TokenBytes(tokenizer))
    assert stream.feed([*_ids(tokenizer, "<end_of_turn>"), 10**6]).text == ""
    assert stream.tokens == 2


@given(text=st.text("abc ", max_size=30), stops=st.lists(st.text("abc ", min_size=1, max_size=4), max_size=4))
def test_stop_strings_cut_at_the_first_to_be_complete(
    tokenizer: Tokenizer, text: str, stops: list[str]
) -> None:
    stream = Detokenizer(TokenBytes(tokenizer), stops)
    out = ""
    for token in _ids(tokenizer, text):
        out += stream.feed([token]).text
        assert not any(stop in out for stop in stops)
    out += stream.finish().text
    if stream.stopped:
        assert any(text.startswith(out + stop) for stop in stops)
        assert not any(stop in out for stop in stops)
    else:
        assert out == text
        assert not any(stop in text for stop in stops)


def test_no_more_is_held_back_than_may_become_a_stop_string(tokenizer: Tokenizer) -> None:
    stream = Detokenizer(TokenBytes(tokenizer), ["END!"])
    fed = [stream.feed(_ids(tokenizer, letter)).text for letter in "ENxEND?"]
    assert fed == ["", "", "ENx", "", "", "", "END?"]


def test_tokens_after_a_stop_string_are_ignored(tokenizer: Tokenizer) -> None:
    stream = Detokenizer(TokenBytes(tokenizer), ["b"])
    letters = [_ids(tokenizer, letter)[0] for letter in "abcd"]
    assert stream.feed(letters).text == "a"
    assert (stream.stopped, stream.tokens) == (True, 2)
    assert stream.feed(letters) == stream.finish() == TextDelta()


UNICODE = st.lists(
    st.sampled_from(["👩‍👩‍👧", "🏳️‍🌈", "한국어", "ᄒ", "ẍ̂", "é", "é", "𝔘", "ﷺ", "a", " ", "\n", "\x00"])
    | st.characters(codec="utf-8", exclude_characters="<▁\ufffd"),
    max_size=12,
).map("".join)


@given(text=UNICODE, stops=st.lists(UNICODE.filter(bool), max_size=2), as_bytes=st.booleans())
def test_tokens_come_with_the_text_they_make_up(
    tokenizer: Tokenizer, text: str, stops: list[str], as_bytes: bool
) -> None:
    ids = [FIRST_BYTE + byte for byte in text.encode()] if as_bytes else _ids(tokenizer, text)
    stream = Detokenizer(TokenBytes(tokenizer), stops)
    pieces = [stream.feed([token]) for token in ids] + [stream.finish()]
    for piece in pieces:
        assert "\ufffd" not in piece.text
        assert b"".join(token.data for token in piece.tokens).decode() == piece.text
    said = "".join(piece.text for piece in pieces)
    assert text.startswith(said)
    assert stream.stopped or said == text
    told = [token.token_id for piece in pieces for token in piece.tokens]
    assert told == ids[: len(told)]


@given(st.binary(max_size=12))
def test_bytes_that_are_not_utf8_are_reported_unchanged(tokenizer: Tokenizer, data: bytes) -> None:
    stream = Detokenizer(TokenBytes(tokenizer))
    ids = [FIRST_BYTE + byte for byte in data]
    pieces = [stream.feed([token]) for token in ids] + [stream.finish()]
    assert "".join(piece.text for piece in pieces) == data.decode(errors="replace")
    assert b"".join(token.data for piece in pieces for token in piece.tokens) == data


def test_a_token_cut_by_a_stop_string_keeps_the_rest_of_its_bytes(tokenizer: Tokenizer) -> None:
    (token,) = _ids(tokenizer, "gle.")
    stream = Detokenizer(TokenBytes(tokenizer), ["e."])
    said = stream.feed([token], [PositionLogprobs(-1.5)])
    assert (said.text, said.tokens) == ("gl", (DetokenizedToken(token, b"gl", PositionLogprobs(-1.5)),))


def test_a_stop_token_counts_but_has_no_text(tokenizer: Tokenizer) -> None:
    (token,) = _ids(tokenizer, "gle.")
    stream = Detokenizer(TokenBytes(tokenizer), stop_token_ids=frozenset({token}))
    assert (stream.feed([token]), stream.tokens) == (TextDelta(), 1)


def test_a_call_begins_where_its_mark_is_complete(tokenizer: Tokenizer) -> None:
    stream = Detokenizer(TokenBytes(tokenizer), ["STOP"], call_start="<call>")
    said = [stream.feed(_ids(tokenizer, letter)) for letter in "a<b<call>STOP<call>"]
    assert "".join(piece.text for piece in said) == "a<b"
    assert "".join(piece.call for piece in said) == "STOP<call>"
    assert (stream.calling, stream.stopped) == (True, False)


@pytest.mark.parametrize(("text", "calls"), [("<call>x", True), (' {"a": "<call>"}', False), ("<cal", False)])
def test_where_a_call_must_be_first_it_is_text_elsewhere(
    tokenizer: Tokenizer, text: str, calls: bool
) -> None:
    stream = Detokenizer(TokenBytes(tokenizer), call_start="<call>", call_first=True)
    said = [stream.feed([token]) for token in _ids(tokenizer, text)] + [stream.finish()]
    assert stream.calling == calls
    assert "".join(piece.text for piece in said) == ("" if calls else text)


def test_names_and_bytes_of_tokens(tokenizer: Tokenizer) -> None:
    table = TokenBytes(tokenizer)
    ids = _ids(tokenizer, "<bos>é<end_of_turn>")
    assert table.decode(ids) == "<bos>é<end_of_turn>"
    assert [table.name(i) for i in ids] == ["<bos>", "\ufffd", "\ufffd", "<end_of_turn>"]
    assert all(table[i] == b'"' for i in table.ids_of('"'))
