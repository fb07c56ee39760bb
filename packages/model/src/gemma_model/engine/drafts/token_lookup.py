"""Finds where the last tokens of an output occur in a text: what followed there may follow here too.

The text is the output's own, with its prompt (prompt lookup decoding), or one that the client predicts.
"""

from collections.abc import Iterable, Iterator, Sequence

from gemma_model.engine.drafts.draft_source import Draft
from gemma_model.engine_types import DraftKind

MIN_MATCH, MIN_PREDICTED_MATCH = 3, 2
"""Tokens that must agree before a draft."""
LONG_MATCH = 8
"""From this many equal tokens on, a draft is right more often."""
MAX_MATCH = 32
"""Longer matches are not compared."""
CANDIDATES = 32
"""Places that are compared, the last ones first."""


class TokenIndex:
    """A text of tokens, and where each n-gram ends in it.

    As in LZ77 compressors, each place knows the one before with the same n-gram, so a token is added in
    constant time.

    Args:
        token_ids: of the text.
        length: tokens of an n-gram.
    """

    def __init__(self, token_ids: Iterable[int], length: int) -> None:
        self.token_ids: list[int] = []
        self._length = length
        self._last: dict[tuple[int, ...], int] = {}  # where an n-gram ends for the last time
        self._before: list[int] = []  # where the n-gram that ends at a place ended before; -1: nowhere
        for token_id in token_ids:
            self.append(token_id)

    def append(self, token_id: int) -> None:
        """Add a token to the text."""
        self.token_ids.append(token_id)
        ngram = tuple(self.token_ids[-self._length :])
        self._before.append(self._last.get(ngram, -1))
        self._last[ngram] = len(self.token_ids) - 1

    @property
    def repeats(self) -> bool:
        """Whether the last n-gram of the text occurred before."""
        return bool(self._before) and self._before[-1] >= 0

    def find(self, output: Sequence[int], near: int) -> tuple[int, int]:
        """Where a text goes on after the longest suffix of an output, and the length of that suffix.

        Args:
            output: may be the text itself, whose end is not found.
            near: of equally long suffixes, the first from this place on is taken, or the last before it.

        Returns:
            The place and the length; a length of 0 if nothing was found.
        """
        best, longest = 0, 0
        for end in self._places(tuple(output[-self._length :]), itself=output is self.token_ids):
            place, length = end + 1, self._match(output, end)
            if (length, self._preference(place, near)) > (longest, self._preference(best, near)):
                best, longest = place, length
        return best, longest

    def _preference(self, place: int, near: int) -> int:
        """The first place from ``near`` on is best, then the last one before it."""
        return near - place if place >= near else place - near - len(self.token_ids)

    def _places(self, ngram: tuple[int, ...], itself: bool) -> Iterator[int]:
        if len(ngram) < self._length:
            return
        place = self._before[-1] if itself else self._last.get(ngram, -1)
        for _ in range(CANDIDATES):
            if place < 0:
                return
            yield place
            place = self._before[place]

    def _match(self, output: Sequence[int], place: int) -> int:
        most = min(MAX_MATCH, place + 1, len(output))
        for length in range(most):
            if output[-1 - length] != self.token_ids[place - length]:
                return length
        return most


class PromptLookup:
    """Drafts what followed the last tokens where they occurred before, in the prompt or the output.

    Args:
        prompt: its tokens.
    """

    kind: DraftKind = "ngram"

    def __init__(self, prompt: Iterable[int]) -> None:
        self._index = TokenIndex(prompt, MIN_MATCH)

    def append(self, token_id: int) -> None:
        """See ``DraftSource``."""
        self._index.append(token_id)

    def propose(self, limit: int) -> Draft:
        """See ``DraftSource``. A draft that reaches the end of the text repeats itself."""
        text = self._index.token_ids
        if not self._index.repeats:  # as nearly always in prose: nothing else may take time then
            return Draft()
        place, length = self._index.find(text, near=len(text))
        if length < MIN_MATCH:
            return Draft()
        period = len(text) - place
        tokens = [text[place + i % period] for i in range(limit)]
        return Draft(tokens, int(length >= LONG_MATCH))


class PredictionLookup:
    """Drafts the text that the client predicts: from its beginning, and after a difference where it goes on.

    Args:
        predicted: tokens of the prediction.
    """

    kind: DraftKind = "prediction"

    def __init__(self, predicted: Iterable[int]) -> None:
        self._index = TokenIndex(predicted, MIN_PREDICTED_MATCH)
        self._output: list[int] = []
        self._place, self._follows = 0, True  # the place of the next token, if the output follows the text

    def append(self, token_id: int) -> None:
        """See ``DraftSource``."""
        self._output.append(token_id)
        text = self._index.token_ids
        if self._follows and self._place < len(text) and text[self._place] == token_id:
            self._place += 1
            return
        place, length = self._index.find(self._output, near=self._place)
        self._follows = length >= MIN_PREDICTED_MATCH
        self._place = place if self._follows else self._place

    def propose(self, limit: int) -> Draft:
        """See ``DraftSource``."""
        if not self._follows:
            return Draft()
        return Draft(self._index.token_ids[self._place : self._place + limit])
