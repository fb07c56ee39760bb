"""Leading a constrained answer to its end before ``max_tokens`` cuts it.

A schema rarely bounds its strings, and half a JSON document is of no use. So when no more tokens are left
than the shortest way to the end takes, only that way stays open: strings are closed, optional parts left out.
The answer is then whole and fits its grammar; ``finish_reason: length`` tells that it was cut short.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import llguidance
import numpy as np
import numpy.typing as npt

from gemma_model.output import TokenBytes
from gemma_model.tools import JsonScanner

Mask = npt.NDArray[np.int32]
"""A bit for each token id, ``[ceil(vocabulary / 32)]``; see ``Constraint.allowed``."""

SPARE = 16
"""Tokens by which JSON lands early: one token may open what takes several to close."""
LONGEST = 256
"""Tokens; a way to the end that is longer is not looked for."""
CLOSING = ("}]", ",", "ntf", "0123456789", '"', ":")
"""What brings JSON nearer to its end where it is not within a string, best first."""
ENDING = ('"', "@", ":")
"""The same within one; an address must have its ``@`` before its end."""


class Vocabulary:
    """The model's tokens, as masks.

    Args:
        tokenizer: llguidance's; it has as many tokens as the model has logits.
        table: each token's bytes.
        unsayable: ids that no answer may hold.
        stop_token_ids: ids that end an answer.
    """

    def __init__(
        self,
        tokenizer: llguidance.LLTokenizer,
        table: TokenBytes,
        unsayable: Iterable[int],
        stop_token_ids: Iterable[int],
    ) -> None:
        self.tokenizer, self.table = tokenizer, table
        self._sayable = ~self._mask(unsayable)
        self.stops = self._mask(stop_token_ids)
        self.closing, self.ending = (
            [self._mask(i for char in chars for i in table.spelling(char)) for chars in kinds]
            for kinds in (CLOSING, ENDING)
        )

    def allowed(self, matcher: llguidance.LLMatcher) -> Mask:
        """What may come next.

        Raises:
            ValueError: when the grammar turned out too complex on the way.
        """
        words = np.frombuffer(matcher.compute_bitmask(), "<i4")  # padded
        mask = words[: len(self._sayable)] & self._sayable
        if matcher.is_error():
            raise ValueError(f"the grammar cannot be followed: {matcher.get_error()}")
        return mask

    def first(self, text: bytes) -> Mask:
        """The token with which this text begins."""
        return self._mask(self.tokenizer.tokenize_bytes(text)[:1])

    def _mask(self, ids: Iterable[int]) -> Mask:
        bits = np.zeros(-(-self.tokenizer.vocab_size // 32) * 32, np.bool_)
        bits[list(ids)] = True
        return np.packbits(bits, bitorder="little").view("<i4").astype(np.int32)


def ids_of(mask: Mask) -> list[int]:
    """The tokens of a mask.

    Raises:
        ValueError: when there are none.
    """
    ids = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
    if not len(ids):
        raise ValueError("nothing fits it")
    return [int(i) for i in ids]


@dataclass(eq=False)
class Place:
    """Where an answer stands: what its grammar has taken in, and where in the JSON that is.

    Args:
        json_like: whether it is JSON, or tool calls.
    """

    matcher: llguidance.LLMatcher
    vocabulary: Vocabulary
    json_like: bool
    scanner: JsonScanner = field(default_factory=JsonScanner)

    @property
    def spare(self) -> int:
        """Tokens by which to land early."""
        return SPARE if self.json_like else 1

    def copy(self) -> "Place":
        """The same place, to go on from in another way."""
        return replace(self, matcher=self.matcher.deep_copy(), scanner=replace(self.scanner))

    def allowed(self) -> Mask:
        """What may come next."""
        return self.vocabulary.allowed(self.matcher)

    def begin_json(self) -> None:
        """What came so far was no JSON."""
        self.scanner = JsonScanner()

    def say(self, text: str) -> int:
        """Take in a text; how many tokens that were."""
        token_ids = self.vocabulary.tokenizer.tokenize_str(text)
        for token_id in token_ids:
            self.advance(token_id)
        return len(token_ids)

    def advance(self, token_id: int) -> str:
        """Take in a token; what it stands for, byte by byte.

        Raises:
            ValueError: when it does not fit, or the grammar turned out too complex.
        """
        if not self.matcher.consume_token(token_id):
            raise ValueError(f"the grammar cannot be followed: {self.matcher.get_error()}")
        text = rest = self.vocabulary.table[token_id].decode("latin-1")
        while rest:  # the scanner pauses where a document ends
            rest = rest[self.scanner.feed(rest) :]
        return text

    def homeward(self) -> Mask:
        """Of what may come next, what leads to the end soonest."""
        mask, vocabulary = self.allowed(), self.vocabulary
        if (mask & vocabulary.stops).any():
            return mask & vocabulary.stops
        forced = self.matcher.compute_ff_bytes()  # not by a token that goes beyond what is forced
        if forced and (both := mask & vocabulary.first(forced)).any():
            return both
        kinds = vocabulary.ending if self.scanner.in_string else vocabulary.closing
        return next((both for kind in kinds if self.json_like and (both := mask & kind).any()), mask)

    def way_home(self) -> int:
        """How many tokens the shortest way to the end takes, the stop token included; ``LONGEST`` at most.

        Raises:
            ValueError: when it is a dead end.
        """
        place, choose = self.copy(), random.Random(0).choice
        for length in range(1, LONGEST):
            mask = place.homeward()
            if (mask & self.vocabulary.stops).any():
                return length
            place.advance(choose(ids_of(mask)))
        return LONGEST
