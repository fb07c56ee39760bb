"""Token ids → text: decodes UTF-8 incrementally, stops at stop strings, detects the start of a tool call."""

import codecs
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from tokenizers import Tokenizer

from gemma_model.engine_types import PositionLogprobs
from gemma_model.tool_calls import overlap

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """The UTF-8 bytes of each token.

    Gemma's tokenizer is a byte-fallback BPE: a token is a piece of text with ``▁`` for a space, or one raw
    byte, or a control token without text. So a table decodes it, and no token depends on its neighbours.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._control_ids = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._cache: dict[int, bytes] = {}

    def __getitem__(self, token_id: int) -> bytes:
        if token_id not in self._cache:
            self._cache[token_id] = self._look_up(token_id)
        return self._cache[token_id]

    def name(self, token_id: int) -> str:
        """The token for people: its text, or a control token's name."""
        if token_id in self._control_ids:
            return self._tokenizer.id_to_token(token_id) or ""
        return self[token_id].decode(errors="replace")

    def with_control_name(self, token_id: int) -> bytes:
        """As ``[]``, but with the name of a control token instead of nothing."""
        return self.name(token_id).encode() if token_id in self._control_ids else self[token_id]

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of these tokens, including the names of control tokens."""
        return b"".join(map(self.with_control_name, token_ids)).decode(errors="replace")

    def ids_of(self, char: str) -> list[int]:
        """The tokens that consist of this one ASCII character."""
        pieces = (char, f"<0x{ord(char):02X}>")
        return [i for piece in pieces if (i := self._tokenizer.token_to_id(piece)) is not None]

    def _look_up(self, token_id: int) -> bytes:
        piece = self._tokenizer.id_to_token(token_id)
        if token_id in self._control_ids or piece is None:
            return b""
        if match := _BYTE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        return piece.replace("▁", " ").encode()


@dataclass(frozen=True)
class DetokenizedToken:
    """A token whose text has been returned; ``data`` are its bytes in that text."""

    token_id: int
    data: bytes
    logprobs: PositionLogprobs | None = None


@dataclass(frozen=True)
class TextDelta:
    """The text that some tokens add.

    Args:
        text: final text.
        tokens: those that make up ``text``; their bytes joined are its bytes.
        call: text after the start of the first tool call.
    """

    text: str = ""
    tokens: tuple[DetokenizedToken, ...] = ()
    call: str = ""

    def __add__(self, other: "TextDelta") -> "TextDelta":
        return TextDelta(self.text + other.text, self.tokens + other.tokens, self.call + other.call)


@dataclass
class _CharacterGroup:
    """Tokens that share a character, nearly always a single token; ``start`` and ``end`` count characters."""

    start: int
    end: int | None = None
    tokens: list[DetokenizedToken] = field(default_factory=list)

    def cut(self, length: int) -> list[DetokenizedToken]:
        """The tokens, without the characters beyond the first ``length``."""
        assert self.end is not None
        *complete, last = self.tokens
        text = last.data.decode(errors="replace")
        kept = text[: max(0, len(text) - (self.end - self.start - length))]
        return [*complete, DetokenizedToken(last.token_id, kept.encode(), last.logprobs)]


class Detokenizer:
    """The text of one choice, as its tokens arrive.

    No delta ends within a character, and none contains a stop string or the beginning of one.

    Args:
        table: bytes of each token.
        stop: strings that end the output; they are not part of it and have no effect within tool calls.
        stop_token_ids: tokens that end it; their text is not part of it either.
        call_start: what begins a tool call; empty where no call is possible.
        call_first: an output is either tool calls alone or contains none.
        special: write control tokens by their names; else they have no text.
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
        self._bytes = table.with_control_name if special else table.__getitem__
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop, self._stop_token_ids = stop, stop_token_ids
        self._call_start, self._call_first = call_start, call_first
        self._held = ""  # text that may be the beginning of a stop string or call
        self._decoded_chars = self._returned_chars = 0
        self._groups: list[_CharacterGroup] = []
        self.tokens = 0
        """Tokens processed so far, up to and including the one that completed a stop string."""
        self.stop_string: str | None = None
        """The stop string that has been found; later tokens are ignored."""
        self.calling = False
        """Whether a tool call has begun; what follows is not text of the output."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string has been found."""
        return self.stop_string is not None

    def feed(self, token_ids: Iterable[int], logprobs: Iterable[PositionLogprobs] = ()) -> TextDelta:
        """Add tokens; returns the text that is final."""
        delta = TextDelta()
        for token_id, position in zip_longest(token_ids, logprobs):
            if self.stopped:
                break
            assert token_id is not None, "more log probabilities than tokens"
            self.tokens += 1
            if token_id not in self._stop_token_ids:
                delta += self._add(DetokenizedToken(token_id, self._bytes(token_id), position))
        return delta

    def finish(self) -> TextDelta:
        """The remaining text; no token follows."""
        if self.stopped:
            return TextDelta()
        self._add_text(self._utf8.decode(b"", final=True))
        delta = self._release()
        return delta if self.stopped else delta + self._return(len(self._held))

    def _add(self, token: DetokenizedToken) -> TextDelta:
        if not self.calling:
            if not self._groups or self._groups[-1].end is not None:
                self._groups.append(_CharacterGroup(self._decoded_chars))
            self._groups[-1].tokens.append(token)
        self._add_text(self._utf8.decode(token.data))
        return self._release()

    def _add_text(self, text: str) -> None:
        self._held += text
        self._decoded_chars += len(text)
        if self._groups and not self._utf8.getstate()[0]:
            self._groups[-1].end = self._decoded_chars

    def _release(self) -> TextDelta:
        """Cut at the first stop string or call, or hold back the longest possible beginning of one."""
        if self.calling:
            return self._return(len(self._held))
        marks = [*self._stop, *self._call_marks()]
        found = min(((at, mark) for mark in marks if (at := self._held.find(mark)) >= 0), default=None)
        if found is None:
            keep = max((overlap(self._held, mark) for mark in marks), default=0)
            return self._return(len(self._held) - keep)
        at, mark = found
        delta = self._return(at, cut=True)
        if mark in self._stop:
            self.stop_string = mark
            return delta
        self.calling, self._groups = True, []
        self._held = self._held[len(mark) :]
        return delta + self._return(len(self._held))

    def _call_marks(self) -> list[str]:
        """With ``call_first``, a call is recognised only while the output has no text."""
        begun = self._returned_chars > 0 or not self._call_start.startswith(
            self._held[: len(self._call_start)]
        )
        return [] if not self._call_start or (self._call_first and begun) else [self._call_start]

    def _return(self, length: int, *, cut: bool = False) -> TextDelta:
        """The first ``length`` characters that are held, with their tokens; ``cut``: no text follows them."""
        text, self._held = self._held[:length], self._held[length:]
        if self.calling:
            return TextDelta(call=text)
        self._returned_chars += length
        tokens: list[DetokenizedToken] = []
        while (
            self._groups and self._groups[0].end is not None and self._groups[0].end <= self._returned_chars
        ):
            tokens += self._groups.pop(0).tokens
        if cut and self._groups and self._groups[0].start < self._returned_chars:
            tokens += self._groups[0].cut(self._returned_chars - self._groups[0].start)
        return TextDelta(text, tuple(tokens))
