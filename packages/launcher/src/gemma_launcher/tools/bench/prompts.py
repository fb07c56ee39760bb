"""Random prompts of a given length; all are different, so that no prefix cache can help."""

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
MAX_ATTEMPTS = 12
IMAGE_SIDE = 256

PromptMessage = dict[str, Any]
TokenCounter = Callable[[str], int | None]
"""Text → number of prompt tokens, including the chat template; ``None`` if the server cannot count them."""


@dataclass(frozen=True)
class PromptSet:
    """A set of prompts.

    Args:
        texts: one per request.
        exact: whether each has exactly the requested number of tokens.
    """

    texts: tuple[str, ...]
    exact: bool


def make_prompts(count: TokenCounter, tokens: int, how_many: int, seed: int = 0) -> PromptSet:
    """Prompts of ``tokens`` tokens each, chat template included; approximately if they cannot be counted."""
    randomness = random.Random(seed)
    texts, exact, words = [], True, tokens
    for _ in range(how_many):
        text, reached, words = _fit(count, tokens, words, randomness)
        texts.append(text)
        exact = exact and reached
    return PromptSet(tuple(texts), exact)


def _fit(count: TokenCounter, tokens: int, words: int, randomness: random.Random) -> tuple[str, bool, int]:
    """A text, whether it has the requested length, and its number of words, to start the next one with."""
    for _ in range(MAX_ATTEMPTS):
        text = " ".join(randomness.choices(WORDS, k=words))
        counted = count(text)
        if counted is None:
            return text, False, words
        if counted == tokens:
            return text, True, words
        text, reached = _extend(count, text, counted, tokens)
        if reached:
            return text, True, words
        words = max(1, words + _step(tokens - counted, counted, words))
    return text, False, words


def _step(missing: int, counted: int, words: int) -> int:
    """How many words to add or remove, by the mean length of a word; at least one."""
    steps = round(missing * words / counted)
    return steps or (1 if missing > 0 else -1)


def _extend(count: TokenCounter, text: str, counted: int, tokens: int) -> tuple[str, bool]:
    """Extends a text that is slightly too short with letters, most of which are one token each."""
    for _ in range(4):
        if not 0 < tokens - counted <= 8:
            break
        text += " a" * (tokens - counted)
        counted = count(text) or 0
    return text, counted == tokens


def make_messages(text: str, images: int, randomness: random.Random) -> list[PromptMessage]:
    """One user message with images before the text."""
    if not images:
        return [{"role": "user", "content": text}]
    parts: list[PromptMessage] = [_image_part(randomness) for _ in range(images)]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def _image_part(randomness: random.Random) -> PromptMessage:
    encoded = base64.b64encode(random_png(randomness)).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}


def random_png(randomness: random.Random, side: int = IMAGE_SIDE) -> bytes:
    """A small PNG of random stripes."""
    row = b"".join(randomness.randbytes(3) * 8 for _ in range(side // 8))
    rows = (b"\0" + row) * side  # each row starts with its filter type, 0: none
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunks(chunks))


def _png_chunks(chunks: tuple[tuple[bytes, bytes], ...]) -> Iterator[bytes]:
    for name, data in chunks:
        yield struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
