"""Prompts of a wanted length, no two alike, so that no server answers one from what it kept of another."""

import base64
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

# fmt: off
WORDS: Final = (
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school",
    "state", "family", "student", "group", "country", "problem", "hand", "part", "place", "case",
    "week", "company", "system", "program", "question", "work", "government", "number", "night",
    "point", "home", "water", "room", "mother", "area", "money", "story", "fact", "month", "lot",
    "right", "study", "book", "eye", "job", "word", "business", "issue", "side", "kind", "head",
    "house", "service", "friend", "father", "power", "hour", "game", "line", "end", "member", "law",
    "car", "city", "community", "name",
)
# fmt: on
TRIES = 12
PICTURE_SIDE = 256

Message = dict[str, Any]
Count = Callable[[str], int | None]
"""How many tokens a prompt of this text has, template included; ``None`` when the server cannot say."""


@dataclass(frozen=True)
class Prompts:
    """Some prompts.

    Args:
        texts: one for each request.
        exact: whether each was seen to have the wanted number of tokens.
    """

    texts: tuple[str, ...]
    exact: bool


def make(count: Count, tokens: int, how_many: int, seed: int = 0) -> Prompts:
    """Prompts of ``tokens`` tokens each, template included; as near as can be where nobody counts."""
    randomness = random.Random(seed)
    texts, exact, words = [], True, tokens
    for _ in range(how_many):
        text, reached, words = _fitted(count, tokens, words, randomness)
        texts.append(text)
        exact = exact and reached
    return Prompts(tuple(texts), exact)


def _fitted(count: Count, tokens: int, words: int, randomness: random.Random) -> tuple[str, bool, int]:
    """A text, whether it has the wanted length, and how many words that took: a start for the next one."""
    for _ in range(TRIES):
        text = " ".join(randomness.choices(WORDS, k=words))
        counted = count(text)
        if counted is None:
            return text, False, words
        if counted == tokens:
            return text, True, words
        text, reached = _trimmed(count, text, counted, tokens)
        if reached:
            return text, True, words
        words = max(1, words + _step(tokens - counted, counted, words))
    return text, False, words


def _step(missing: int, counted: int, words: int) -> int:
    """How many words more, or fewer: by what a word took so far, and by one at least."""
    steps = round(missing * words / counted)
    return steps or (1 if missing > 0 else -1)


def _trimmed(count: Count, text: str, counted: int, tokens: int) -> tuple[str, bool]:
    """A text that is a little too short, made up with letters: each is a token of its own, mostly."""
    for _ in range(4):
        if not 0 < tokens - counted <= 8:
            break
        text += " a" * (tokens - counted)
        counted = count(text) or 0
    return text, counted == tokens


def messages(text: str, pictures: int, randomness: random.Random) -> list[Message]:
    """One user's message, with so many pictures in front of the text."""
    if not pictures:
        return [{"role": "user", "content": text}]
    parts: list[Message] = [_picture_part(randomness) for _ in range(pictures)]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def _picture_part(randomness: random.Random) -> Message:
    encoded = base64.b64encode(picture(randomness)).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}


def picture(randomness: random.Random, side: int = PICTURE_SIDE) -> bytes:
    """A PNG of random stripes: small, and never the same twice."""
    row = b"".join(randomness.randbytes(3) * 8 for _ in range(side // 8))
    rows = (b"\0" + row) * side  # each row begins with its filter, 0 for none
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunks(chunks))


def _chunks(chunks: tuple[tuple[bytes, bytes], ...]) -> Iterator[bytes]:
    for name, data in chunks:
        yield struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
