"""Token ids → text: incremental UTF-8, stop strings held back."""

import codecs
import re
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer

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

    def _lookup(self, token_id: int) -> bytes:
        piece = self._tokenizer.id_to_token(token_id)
        if token_id in self._silent or piece is None:
            return b""
        if match := _BYTE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        return piece.replace("▁", " ").encode()


class TextStream:
    """The text of one answer, as its tokens come.

    No piece ends within a character, none holds a stop string or the beginning of one.

    Args:
        table: of the tokenizer.
        stop: strings that end the answer; they are not part of it.
    """

    def __init__(self, table: TokenBytes, stop: Sequence[str] = ()) -> None:
        self._table = table
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = stop
        self._held = ""
        self.tokens = 0
        """Tokens taken in so far, up to and with the one that completed a stop string."""
        self.stopped = False
        """Whether a stop string has been found; later tokens are ignored."""

    def feed(self, token_ids: Iterable[int]) -> str:
        """Take in tokens, give out text that is final."""
        ready = ""
        for token_id in token_ids:
            if self.stopped:
                break
            self.tokens += 1
            self._held += self._utf8.decode(self._table[token_id])
            ready += self._release()
        return ready

    def finish(self) -> str:
        """The rest: nothing more will come."""
        if self.stopped:
            return ""
        self._held += self._utf8.decode(b"", final=True)
        rest = self._release()
        if not self.stopped:
            rest, self._held = rest + self._held, ""
        return rest

    def _release(self) -> str:
        """Cut at the earliest stop string, or keep back the longest possible beginning of one."""
        found = [at for at in map(self._held.find, self._stop) if at >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        keep = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a proper beginning of ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
