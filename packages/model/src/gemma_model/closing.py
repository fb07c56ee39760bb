"""Closing a constrained answer that ``max_tokens`` cuts, so that it is whole and fits its grammar.

A schema rarely bounds its strings, and half a JSON document is of no use. The model writes freely up to its
last token: an answer that fits its tokens is the one that more tokens would give. Only when they are used up
and the answer is not complete, its last tokens are taken back, as few as possible, and the shortest way to
the end takes their place. What might be taken back is not sent before. ``finish_reason: length`` tells of it.

None of this is the engine's work. Ways are looked for byte by byte, with a grammar of 256 tokens, for which a
step takes some microseconds.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import llguidance

from gemma_model.output import TokenBytes
from gemma_model.protocol import LEAST_LOGPROB, Scores, Step
from gemma_model.tools import CALL_START, JsonScanner

LONGEST = 2048
"""Bytes; a way to the end that is longer is not looked for."""
GROWTH, SPARE = 4, 16
"""So many tokens longer the way becomes by a token at most, nearly always; and by so many at once."""
NODES = 4000
"""Steps of a search without JSON."""
WIDTH = 48
"""Places that such a search goes on from."""
ATTEMPTS = 3
_ALL = (1 << 256) - 1


def _bits(chars: str) -> int:
    return sum(1 << ord(char) for char in chars)


CLOSING = tuple(map(_bits, ("}]", ",", "ntf", "0123456789", '"', ":")))
"""What brings JSON nearer to its end where it is not within a string, best first."""
ENDING = tuple(map(_bits, ('"', "@", ":")))
"""The same within one; an address must have its ``@`` before its end."""
PRINTABLE = sum(1 << byte for byte in range(32, 127))


@dataclass
class Place:
    """Where an answer stands in its grammar, byte by byte.

    Args:
        matcher: over bytes.
        scanner: where in JSON that is; ``None`` where the answer is none.
    """

    matcher: llguidance.LLMatcher
    scanner: JsonScanner | None

    def copy(self) -> "Place":
        """The same place, to go on from in another way."""
        return Place(self.matcher.deep_copy(), self.scanner and replace(self.scanner))

    def allowed(self) -> int:
        """The bytes that may come next, a bit for each."""
        return int.from_bytes(self.matcher.compute_bitmask(), "little") & _ALL

    def take(self, data: bytes) -> bool:
        """Go on; whether that was possible."""
        if self.scanner is not None:
            rest = data.decode("latin-1")
            while rest:  # the scanner pauses where a document ends
                rest = rest[self.scanner.feed(rest) :]
        return bool(self.matcher.consume_tokens(list(data)))

    def is_complete(self) -> bool:
        """Whether the answer may end here."""
        return bool(self.matcher.is_accepting())

    def endings(self) -> Iterator[bytes]:
        """Ways to the end, shortest first as far as can be told."""
        if self.is_complete():
            yield b""
        elif self.scanner is None:
            yield from _search(self)
        else:
            for seed in range(ATTEMPTS):
                if (way := _json_ending(self, random.Random(seed))) is not None:
                    yield way


def _json_ending(start: Place, choice: random.Random) -> bytes | None:
    """Strings are closed and optional parts are left out."""
    place, way = start.copy(), b""
    while len(way) < LONGEST:
        if place.is_complete():
            return way
        step = place.matcher.compute_ff_bytes() or _towards_end(place, choice)
        if not step or not place.take(step):
            return None
        way += step
    return None


def _towards_end(place: Place, choice: random.Random) -> bytes:
    allowed = place.allowed()
    assert place.scanner is not None
    kinds = (*(ENDING if place.scanner.in_string else CLOSING), PRINTABLE, _ALL)
    best = next((both for kind in kinds if (both := allowed & kind)), 0)
    return bytes([choice.choice(_bytes_of(best))]) if best else b""


def _bytes_of(bits: int) -> list[int]:
    return [byte for byte in range(256) if bits >> byte & 1]


def _search(start: Place) -> Iterator[bytes]:
    """Breadth first; of places with the same next bytes, a few stand for all."""
    level, nodes = [(start.copy(), b"")], 0
    while level and nodes < NODES:
        children: list[tuple[Place, bytes]] = []
        alike: dict[int, int] = {}
        for place, way in level:
            for step in _steps(place):
                nodes += 1
                child = place.copy()
                if not child.take(step):
                    continue
                if child.is_complete():
                    yield way + step
                    return
                kind = child.allowed()
                alike[kind] = alike.get(kind, 0) + 1
                if kind and alike[kind] <= 2:
                    children.append((child, way + step))
        level = children[:WIDTH]


def _steps(place: Place) -> list[bytes]:
    if forced := place.matcher.compute_ff_bytes():
        return [forced]
    allowed = place.allowed()
    return [bytes([byte]) for byte in _bytes_of(allowed & PRINTABLE or allowed)]


@dataclass(frozen=True)
class Speech:
    """The model's tokens, as bytes and back."""

    tokenizer: llguidance.LLTokenizer
    table: TokenBytes

    def tokens(self, data: bytes) -> list[int] | None:
        """A text in the model's tokens; nothing when it cannot be said."""
        token_ids = list(self.tokenizer.tokenize_bytes(data)) if data else []
        said = b"".join(self.table[token_id] for token_id in token_ids)
        return token_ids if said == data else None


@dataclass
class Tail:
    """Keeps back the end of one choice while it might have to be taken back.

    Args:
        start: the beginning of its grammar.
        speech: the model's tokens.
        max_tokens: of the choice.
        stop_token_ids: tokens that end it, which stand for no text.
        free: text comes first, which may end anywhere; a tool call may begin in it.
        shortest: tokens of the shortest way from the beginning to the end; 0 where text is free, ``None``
            where none was found: then nothing is closed.
    """

    start: Place
    speech: Speech
    max_tokens: int
    stop_token_ids: frozenset[int]
    free: bool
    shortest: int | None
    complete: bool = False
    """Whether an answer that used up its tokens is whole all the same, with nothing to follow."""
    _ids: list[int] = field(default_factory=list)
    _scores: list[Scores] = field(default_factory=list)
    _sent: int = 0
    _known: tuple[int, int] = (0, 0)
    _text: str = ""
    _call: int = -1
    _place: Place | None = None
    _at: int = 0
    _scans: dict[int, JsonScanner | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = (0, self.shortest or 0)

    def take(self, step: Step) -> tuple[tuple[int, ...], tuple[Scores, ...]]:
        """What may be sent after this step: tokens, and their scores where there are any."""
        before = len(self._ids)
        self._ids += step.token_ids
        self._scores += step.scores
        if self.free:
            self._listen(before)
        if step.finish == "length":
            return self._end()
        if step.last or self.free or self.shortest is None or self._is_safe():
            return self._release(len(self._ids))
        return (), ()

    def _release(self, position: int) -> tuple[tuple[int, ...], tuple[Scores, ...]]:
        start, self._sent = self._sent, max(self._sent, position)
        return tuple(self._ids[start:position]), tuple(self._scores[start:position])

    def _listen(self, before: int) -> None:
        """Whether a call has begun; from there on the answer can be closed."""
        for position in range(before, len(self._ids)):
            self._text = (self._text + self._bytes(position).decode("latin-1"))[-256:]
            if CALL_START in self._text:
                self.free, self._call = False, position
                self._known = (position, self.max_tokens)
                return

    def _is_safe(self) -> bool:
        """Whether what has come can be closed with the tokens that are left, for all that is known."""
        position = len(self._ids)
        left = self.max_tokens - position
        since, way = self._known
        if way + GROWTH * (position - since) + SPARE <= left:
            return True
        found = self._way(position, left)
        if found is not None:
            self._known = (position, len(found))
        return found is not None

    def _way(self, position: int, left: int) -> list[int] | None:
        """Tokens from a position to the end, no more than are left."""
        place = self._seek(position)
        for data in place.endings() if place else ():
            token_ids = self.speech.tokens(data)
            if token_ids is not None and len(token_ids) <= left:
                return token_ids
        return None

    def _end(self) -> tuple[tuple[int, ...], tuple[Scores, ...]]:
        """The tokens are used up: the rest, closed if it is not complete."""
        most = len(self._ids)
        closable = not self.free and self.shortest is not None
        for position in _backwards(most, max(self._sent, self._call + 1)) if closable else ():
            closing = self._way(position, self.max_tokens - position)
            if closing is not None:
                place = self._seek(most) if position == most else None
                self.complete = place is not None and not place.allowed()
                self._ids[position:] = closing
                self._scores[position:] = [Scores(LEAST_LOGPROB)] * len(closing) if self._scores else []
                break
        return self._release(len(self._ids))

    def _seek(self, position: int) -> Place | None:
        """The place after so many tokens; nothing where the grammar became too complex on the way."""
        if self._place is None or (position < self._at and not self._back(position)):
            self._place, self._at = self.start.copy(), 0
            self._scans = {0: self._place.scanner and replace(self._place.scanner)}
        place = self._place
        assert place is not None
        while self._at < position:
            data = self._bytes(self._at)
            if data and not place.take(data):
                self._place = None
                return None
            if self._at == self._call:  # in the text before it, quotes meant nothing
                place.scanner = JsonScanner()
            self._at += 1
            self._scans[self._at] = place.scanner and replace(place.scanner)
        return place

    def _back(self, position: int) -> bool:
        assert self._place is not None
        size = sum(len(self._bytes(i)) for i in range(position, self._at))
        if position not in self._scans or not self._place.matcher.rollback(size):
            return False
        scanner = self._scans[position]
        self._place.scanner, self._at = scanner and replace(scanner), position
        return True

    def _bytes(self, position: int) -> bytes:
        token_id = self._ids[position]
        return b"" if token_id in self.stop_token_ids else self.speech.table[token_id]


def _backwards(most: int, least: int) -> Iterator[int]:
    """Positions to close at: each of the last, then ever fewer, and the last one that can be taken."""
    back = 0
    while most - back > least:
        yield most - back
        back += 1 if back < 16 else back // 8
    yield least
