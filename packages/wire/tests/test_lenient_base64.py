"""base64 in the forms in which clients send it."""

import base64
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma_wire.lenient_base64 import NotBase64, TooManyBytes, decode_base64

FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "lines": lambda text: "\r\n".join(text[i : i + 76] for i in range(0, len(text), 76)) + "\n",
    "spaces": lambda text: " " + " ".join(text),
    "no padding": lambda text: text.rstrip("="),
    "URL-safe": lambda text: text.replace("+", "-").replace("/", "_"),
    "URL-safe without padding": lambda text: text.replace("+", "-").replace("/", "_").rstrip("="),
    "percent escapes": lambda text: quote(text, safe=""),
    "lower case escapes": lambda text: text.replace("+", "%2b").replace("/", "%2f").replace("=", "%3d"),
    "escaped lines": lambda text: "%0D%0A".join(text[i : i + 76] for i in range(0, len(text), 76)),
}


@given(data=st.binary(max_size=500), form=st.sampled_from(sorted(FORMS)))
def test_every_form(data: bytes, form: str) -> None:
    text = FORMS[form](base64.b64encode(data).decode())
    assert decode_base64(text) == decode_base64(text.encode()) == data


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shift", range(6))
def test_texts_longer_than_one_slice(form: str, shift: int) -> None:
    """Wherever the border between two slices falls."""
    data = b"\xfb\xef\xbe\xff" * 200_000 + bytes(shift)
    assert decode_base64(" " * shift + FORMS[form](base64.b64encode(data).decode())) == data


@pytest.mark.parametrize("text", ["a", "aGk=a", "aGk=aGk=", "aGk*", "aG%", "aG%2", "aGk%41", "äöü=", "a\0Gk"])
def test_invalid_base64(text: str) -> None:
    with pytest.raises(NotBase64):
        decode_base64(text)
    with pytest.raises(NotBase64):
        decode_base64(text.encode())
    with pytest.raises(NotBase64):
        decode_base64("A" * 2**18 + text)


def test_decoding_stops_at_the_limit() -> None:
    assert decode_base64("aGk", 2) == b"hi"
    for text in ("aGk", "aGkh", "A" * 10**6):
        with pytest.raises(TooManyBytes):
            decode_base64(text, 1)
