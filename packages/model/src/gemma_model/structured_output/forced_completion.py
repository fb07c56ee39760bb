"""Completes a constrained output that reaches ``max_tokens``, so that it is still valid for its grammar.

A schema rarely limits the length of strings, and a truncated JSON document cannot be parsed. An output that
ends within ``max_tokens`` is unchanged. If an output reaches ``max_tokens`` and is not complete, as few of
its last tokens as possible are replaced by the shortest completion that was found. Tokens that may still be
replaced are held back. ``finish_reason`` is ``length`` in this case.

The engine is not involved. Completions are searched byte by byte, with a grammar over 256 tokens, for which a
step takes a few microseconds.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import llguidance

from gemma_model.detokenizer import TokenBytes
from gemma_model.engine_types import MIN_LOGPROB, EngineOutput, PositionLogprobs
from gemma_model.tool_calls import CALL_START, JsonScanner

MAX_COMPLETION_BYTES = 2048
"""Longer completions are not searched."""
GROWTH, SPARE = 4, 16
"""Tokens by which one more token lengthens the completion, in nearly all cases at most; and a reserve."""
MAX_SEARCH_STEPS = 4000
"""Maximum number of steps of a search for a completion that is not JSON."""
SEARCH_WIDTH = 48
"""Maximum number of states at each level of such a search."""
ATTEMPTS = 3
"""Random completions that are tried for JSON."""
_ALL_BYTES = (1 << 256) - 1


def _bits(chars: str) -> int:
    return sum(1 << ord(char) for char in chars)


CLOSING = tuple(map(_bits, ("}]", ",", "ntf", "0123456789", '"', ":")))
"""Bytes outside a string that lead to the end of a JSON document, best first."""
STRING_CLOSING = tuple(map(_bits, ('"', "@", ":")))
"""The same within a string; an e-mail address requires ``@`` before the end of the string."""
PRINTABLE = sum(1 << byte for byte in range(32, 127))


@dataclass
class GrammarState:
    """The state of a grammar after some output, byte by byte.

    Args:
        matcher: over bytes.
        scanner: the state within JSON; ``None`` if the output is not JSON.
    """

    matcher: llguidance.LLMatcher
    scanner: JsonScanner | None

    def copy(self) -> "GrammarState":
        """An independent copy."""
        return GrammarState(self.matcher.deep_copy(), self.scanner and replace(self.scanner))

    def allowed(self) -> int:
        """The bytes that are allowed next, as a bitmask."""
        return int.from_bytes(self.matcher.compute_bitmask(), "little") & _ALL_BYTES

    def advance(self, data: bytes) -> bool:
        """Append bytes. Returns whether the grammar allows them."""
        if self.scanner is not None:
            rest = data.decode("latin-1")
            while rest:  # the scanner stops where a document ends
                rest = rest[self.scanner.feed(rest) :]
        return bool(self.matcher.consume_tokens(list(data)))

    def is_complete(self) -> bool:
        """Whether the output may end here."""
        return bool(self.matcher.is_accepting())

    def completions(self) -> Iterator[bytes]:
        """Texts that complete the output, approximately in order of length."""
        if self.is_complete():
            yield b""
        elif self.scanner is None:
            yield from _search(self)
        else:
            for seed in range(ATTEMPTS):
                if (completion := _complete_json(self, random.Random(seed))) is not None:
                    yield completion


def _complete_json(start: GrammarState, rng: random.Random) -> bytes | None:
    """A completion that closes open strings and omits optional properties; ``None`` if none was found."""
    state, completion = start.copy(), b""
    while len(completion) < MAX_COMPLETION_BYTES:
        if state.is_complete():
            return completion
        step = state.matcher.compute_ff_bytes() or _closing_byte(state, rng)
        if not step or not state.advance(step):
            return None
        completion += step
    return None


def _closing_byte(state: GrammarState, rng: random.Random) -> bytes:
    allowed = state.allowed()
    assert state.scanner is not None
    preferred = (*(STRING_CLOSING if state.scanner.in_string else CLOSING), PRINTABLE, _ALL_BYTES)
    best = next((common for group in preferred if (common := allowed & group)), 0)
    return bytes([rng.choice(_bytes_of(best))]) if best else b""


def _bytes_of(bits: int) -> list[int]:
    return [byte for byte in range(256) if bits >> byte & 1]


def _search(start: GrammarState) -> Iterator[bytes]:
    """Breadth-first search; at most two states with the same allowed bytes are continued at each level."""
    level, steps = [(start.copy(), b"")], 0
    while level and steps < MAX_SEARCH_STEPS:
        children: list[tuple[GrammarState, bytes]] = []
        similar: dict[int, int] = {}
        for state, completion in level:
            for step in _next_steps(state):
                steps += 1
                child = state.copy()
                if not child.advance(step):
                    continue
                if child.is_complete():
                    yield completion + step
                    return
                allowed = child.allowed()
                similar[allowed] = similar.get(allowed, 0) + 1
                if allowed and similar[allowed] <= 2:
                    children.append((child, completion + step))
        level = children[:SEARCH_WIDTH]


def _next_steps(state: GrammarState) -> list[bytes]:
    if forced := state.matcher.compute_ff_bytes():
        return [forced]
    allowed = state.allowed()
    return [bytes([byte]) for byte in _bytes_of(allowed & PRINTABLE or allowed)]


@dataclass(frozen=True)
class BytesEncoder:
    """Encodes bytes into the model's tokens; ``table`` has the bytes of each token."""

    tokenizer: llguidance.LLTokenizer
    table: TokenBytes

    def encode(self, data: bytes) -> list[int] | None:
        """Tokens of these bytes; ``None`` if no tokens encode them."""
        token_ids = list(self.tokenizer.tokenize_bytes(data)) if data else []
        return token_ids if b"".join(map(self.table.__getitem__, token_ids)) == data else None


Released = tuple[tuple[int, ...], tuple[PositionLogprobs, ...]]
"""Tokens that may be sent, and their log probabilities if the request asks for them."""


@dataclass
class ForcedCompletion:
    """Holds back the last tokens of one choice while a completion may have to replace them.

    Args:
        start: the initial state of its grammar.
        encoder: bytes to tokens.
        max_tokens: maximum number of tokens of the choice.
        stop_token_ids: tokens that end the choice; they have no text.
        free_text: the output begins with text without a grammar, in which a tool call may begin.
        shortest: number of tokens of the shortest valid output; 0 with free text. ``None`` if none was found:
            the output is then truncated.
        complete: the output has reached ``max_tokens``, is complete, and the grammar allows no more.
    """

    start: GrammarState
    encoder: BytesEncoder
    max_tokens: int
    stop_token_ids: frozenset[int]
    free_text: bool
    shortest: int | None
    complete: bool = False
    _ids: list[int] = field(default_factory=list)
    _logprobs: list[PositionLogprobs] = field(default_factory=list)
    _sent: int = 0
    _last_completion: tuple[int, int] = (0, 0)  # position, and tokens of the completion found there
    _text: str = ""
    _call: int = -1  # position of the token with which the first tool call begins
    _state: GrammarState | None = None
    _state_position: int = 0
    _scanners: dict[int, JsonScanner | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._last_completion = (0, self.shortest or 0)

    def add(self, output: EngineOutput) -> Released:
        """Process an output of the engine. Returns the tokens that may be sent now."""
        before = len(self._ids)
        self._ids += output.token_ids
        self._logprobs += output.logprobs
        if self.free_text:
            self._find_call(before)
        if output.finish == "length":
            return self._force_completion()
        if output.last or self.free_text or self.shortest is None or self._can_complete():
            return self._release(len(self._ids))
        return (), ()

    def _release(self, position: int) -> Released:
        start, self._sent = self._sent, max(self._sent, position)
        return tuple(self._ids[start:position]), tuple(self._logprobs[start:position])

    def _find_call(self, before: int) -> None:
        """Find the begin of the first tool call; the output can be completed from there on."""
        for position in range(before, len(self._ids)):
            self._text = (self._text + self._bytes(position).decode("latin-1"))[-256:]
            if CALL_START in self._text:
                self.free_text, self._call = False, position
                self._last_completion = (position, self.max_tokens)
                return

    def _can_complete(self) -> bool:
        """Whether the output so far can surely be completed within ``max_tokens``."""
        position = len(self._ids)
        left = self.max_tokens - position
        since, tokens = self._last_completion
        if tokens + GROWTH * (position - since) + SPARE <= left:
            return True
        found = self._tokens_to_close(position, left)
        if found is not None:
            self._last_completion = (position, len(found))
        return found is not None

    def _tokens_to_close(self, position: int, left: int) -> list[int] | None:
        """At most ``left`` tokens that complete the output from a position; ``None`` if there are none."""
        state = self._state_at(position)
        for data in state.completions() if state else ():
            token_ids = self.encoder.encode(data)
            if token_ids is not None and len(token_ids) <= left:
                return token_ids
        return None

    def _force_completion(self) -> Released:
        """``max_tokens`` is reached: release all remaining tokens, with a completion if necessary."""
        end = len(self._ids)
        possible = not self.free_text and self.shortest is not None
        for position in _backwards(end, max(self._sent, self._call + 1)) if possible else ():
            closing = self._tokens_to_close(position, self.max_tokens - position)
            if closing is not None:
                state = self._state_at(end) if position == end else None
                self.complete = state is not None and not state.allowed()
                self._ids[position:] = closing
                unknown = [PositionLogprobs(MIN_LOGPROB)] * len(closing)
                self._logprobs[position:] = unknown if self._logprobs else []
                break
        return self._release(len(self._ids))

    def _state_at(self, position: int) -> GrammarState | None:
        """The state after this many tokens; ``None`` if the grammar is too complex to compute it."""
        if self._state is None or (position < self._state_position and not self._roll_back(position)):
            self._state, self._state_position = self.start.copy(), 0
            self._scanners = {0: self._state.scanner and replace(self._state.scanner)}
        state = self._state
        assert state is not None
        while self._state_position < position:
            data = self._bytes(self._state_position)
            if data and not state.advance(data):
                self._state = None
                return None
            if self._state_position == self._call:  # quotes before the call are not JSON
                state.scanner = JsonScanner()
            self._state_position += 1
            self._scanners[self._state_position] = state.scanner and replace(state.scanner)
        return state

    def _roll_back(self, position: int) -> bool:
        assert self._state is not None
        size = sum(len(self._bytes(i)) for i in range(position, self._state_position))
        if position not in self._scanners or not self._state.matcher.rollback(size):
            return False
        scanner = self._scanners[position]
        self._state.scanner, self._state_position = scanner and replace(scanner), position
        return True

    def _bytes(self, position: int) -> bytes:
        token_id = self._ids[position]
        return b"" if token_id in self.stop_token_ids else self.encoder.table[token_id]


def _backwards(end: int, first: int) -> Iterator[int]:
    """Positions to try a completion from: each of the last 16, then with growing steps, and ``first``."""
    back = 0
    while end - back > first:
        yield end - back
        back += 1 if back < 16 else back // 8
    yield first
