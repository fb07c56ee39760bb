"""Token ids → text: incremental UTF-8, stop strings held back, the beginning of a tool call noticed."""

import codecs
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from tokenizers import Tokenizer

from gemma_model.protocol import Scores

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """The UTF-8 bytes that each token stands for.

    Gemma's tokenizer is a byte-fallback BPE: a token is a piece of text with ``▁`` for a space, or one raw
    byte, or a control token without text. So decoding is a table, and no token waits for its neighbours.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._silent = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._known: dict[int, bytes] = {}

    def __getitem__(self, token_id: int) -> bytes:
        if token_id not in self._known:
            self._known[token_id] = self._lookup(token_id)
        return self._known[token_id]

    def name(self, token_id: int) -> str:
        """The token for people: its text, or a control token's name."""
        if token_id in self._silent:
            return self._tokenizer.id_to_token(token_id) or ""
        return self[token_id].decode(errors="replace")

    def written(self, token_id: int) -> bytes:
        """As ``[]``, with the name of a control token instead of nothing."""
        return self.name(token_id).encode() if token_id in self._silent else self[token_id]

    def spell_out(self, token_ids: Iterable[int]) -> str:
        """The text of these tokens, with the names of control tokens in it."""
        return b"".join(map(self.written, token_ids)).decode(errors="replace")

    def spelling(self, char: str) -> list[int]:
        """The tokens that are this one ASCII character."""
        pieces = (char, f"<0x{ord(char):02X}>")
        return [i for piece in pieces if (i := self._tokenizer.token_to_id(piece)) is not None]

    def _lookup(self, token_id: int) -> bytes:
        piece = self._tokenizer.id_to_token(token_id)
        if token_id in self._silent or piece is None:
            return b""
        if match := _BYTE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        return piece.replace("▁", " ").encode()


@dataclass(frozen=True)
class Spoken:
    """A token whose text has been given out; ``data`` is its part of it."""

    token_id: int
    data: bytes
    scores: Scores | None = None


@dataclass(frozen=True)
class Said:
    """What some tokens brought.

    Args:
        text: that is final.
        tokens: those that ``text`` consists of, their bytes joined being its bytes.
        call: text after the beginning of the first tool call.
    """

    text: str = ""
    tokens: tuple[Spoken, ...] = ()
    call: str = ""

    def __add__(self, other: "Said") -> "Said":
        return Said(self.text + other.text, self.tokens + other.tokens, self.call + other.call)


@dataclass
class _Group:
    """Tokens that share a character, nearly always one alone; ``start`` and ``end`` count characters."""

    start: int
    end: int | None = None
    tokens: list[Spoken] = field(default_factory=list)

    def cut(self, length: int) -> list[Spoken]:
        """The tokens, without the characters beyond the first ``length``."""
        assert self.end is not None
        *whole, last = self.tokens
        text = last.data.decode(errors="replace")
        kept = text[: max(0, len(text) - (self.end - self.start - length))]
        return [*whole, Spoken(last.token_id, kept.encode(), last.scores)]


class TextStream:
    """The text of one answer, as its tokens come.

    No piece ends within a character, none holds a stop string or the beginning of one.

    Args:
        table: of the tokenizer.
        stop: strings that end the answer; they are not part of it, and have no say within tool calls.
        stop_token_ids: tokens that end it; what they stand for is no part of it either.
        call_start: what begins a tool call; empty where none can be.
        call_first: a call can only be all of the answer, or nothing of it.
        special: control tokens are written by their names; else they are no text.
    """

    def __init__(
        self,
        table: TokenBytes,
        stop: Sequence[str] = (),
        stop_token_ids: frozenset[int] = frozenset(),
        call_start: str = "",
        call_first: bool = False,
        special: bool = False,
    ) -> None:
        self._bytes = table.written if special else table.__getitem__
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop, self._stop_token_ids = stop, stop_token_ids
        self._call_start, self._call_first = call_start, call_first
        self._held = ""
        self._made = self._given = 0  # characters
        self._groups: list[_Group] = []
        self.tokens = 0
        """Tokens taken in so far, up to and with the one that completed a stop string."""
        self.stopped = False
        """Whether a stop string has been found; later tokens are ignored."""
        self.calling = False
        """Whether a tool call has begun; what follows is no text of the answer."""

    def feed(self, token_ids: Iterable[int], scores: Iterable[Scores] = ()) -> Said:
        """Take in tokens, give out what is final."""
        said = Said()
        for token_id, score in zip_longest(token_ids, scores):
            if self.stopped:
                break
            assert token_id is not None, "more scores than tokens"
            self.tokens += 1
            if token_id not in self._stop_token_ids:
                said += self._take(Spoken(token_id, self._bytes(token_id), score))
        return said

    def finish(self) -> Said:
        """The rest: nothing more will come."""
        if self.stopped:
            return Said()
        self._hear(self._utf8.decode(b"", final=True))
        said = self._release()
        return said if self.stopped else said + self._give(len(self._held))

    def _take(self, token: Spoken) -> Said:
        if not self.calling:
            if not self._groups or self._groups[-1].end is not None:
                self._groups.append(_Group(self._made))
            self._groups[-1].tokens.append(token)
        self._hear(self._utf8.decode(token.data))
        return self._release()

    def _hear(self, text: str) -> None:
        self._held += text
        self._made += len(text)
        if self._groups and not self._utf8.getstate()[0]:
            self._groups[-1].end = self._made

    def _release(self) -> Said:
        """Cut at the earliest stop string or call, or keep back the longest possible beginning of one."""
        if self.calling:
            return self._give(len(self._held))
        marks = [*self._stop, *self._call_marks()]
        found = min(((at, mark) for mark in marks if (at := self._held.find(mark)) >= 0), default=None)
        if found is None:
            keep = max((_overlap(self._held, mark) for mark in marks), default=0)
            return self._give(len(self._held) - keep)
        at, mark = found
        said = self._give(at, cut=True)
        if mark in self._stop:
            self.stopped = True
            return said
        self.calling, self._groups = True, []
        self._held = self._held[len(mark) :]
        return said + self._give(len(self._held))

    def _call_marks(self) -> list[str]:
        """Where a call can only be first, the mark counts while nothing else has been said."""
        begun = self._given > 0 or not self._call_start.startswith(self._held[: len(self._call_start)])
        return [] if not self._call_start or (self._call_first and begun) else [self._call_start]

    def _give(self, length: int, *, cut: bool = False) -> Said:
        """The first ``length`` characters of what is held, with their tokens; ``cut``: no others come."""
        text, self._held = self._held[:length], self._held[length:]
        if self.calling:
            return Said(call=text)
        self._given += length
        tokens: list[Spoken] = []
        while self._groups and self._groups[0].end is not None and self._groups[0].end <= self._given:
            tokens += self._groups.pop(0).tokens
        if cut and self._groups and self._groups[0].start < self._given:
            tokens += self._groups[0].cut(self._given - self._groups[0].start)
        return Said(text, tuple(tokens))


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a proper beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
