"""Pictures and sounds → soft tokens: in batches, once for each content, kept while there is room."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from torch import Tensor

from gemma_model.nn.ops import is_finite
from gemma_model.protocol import Media

AT_ONCE = 4
"""Media in one run of a tower: while it runs, each picture of 768 × 768 pixels takes 180 MiB in bf16."""

Encode = Callable[[Sequence[Media]], Tensor]
"""Media of one modality and shape → ``[media, soft tokens, hidden]``."""


class SoftTokens:
    """What the towers made of media, the most recent ones, by content.

    Args:
        encode: runs a tower.
        budget: bytes that are kept; the last medium is kept however small they are.
    """

    def __init__(self, encode: Encode, budget: int) -> None:
        self._encode, self._budget, self._size = encode, budget, 0
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    def of(self, media: Iterable[Media]) -> dict[Media, Tensor | Exception]:
        """Soft tokens ``[soft tokens, hidden]`` of each, or why there are none; equal media are run once.

        What is returned stays valid, whatever is dropped from what is kept.
        """
        wanted = dict.fromkeys(media)
        found: dict[Media, Tensor | Exception] = {}
        for medium in wanted:
            if (kept := self._kept.get(_key(medium))) is not None:
                found[medium] = kept
        for batch in _batches(medium for medium in wanted if medium not in found):
            found |= zip(batch, self._run(batch), strict=True)
        for medium in wanted:
            self._keep(medium, found[medium])
        return found

    def _run(self, batch: Sequence[Media]) -> list[Tensor | Exception]:
        """One run for all; when that fails, one for each, so that nobody pays for another's medium."""
        try:
            tokens = self._encode(batch)
        except Exception as error:
            if len(batch) == 1:
                return [error]
        else:
            return [_checked(row) for row in tokens]
        return [self._run([medium])[0] for medium in batch]  # here the error is gone, and the memory it held

    def _keep(self, medium: Media, tokens: Tensor | Exception) -> None:
        if isinstance(tokens, Exception):
            return
        if _key(medium) not in self._kept:
            self._kept[_key(medium)] = tokens
            self._size += tokens.nbytes
        self._kept.move_to_end(_key(medium))
        while self._size > self._budget and len(self._kept) > 1:
            self._size -= self._kept.popitem(last=False)[1].nbytes


def _checked(tokens: Tensor) -> Tensor | Exception:
    """A copy, for a view would keep the whole batch in memory; an error where a number is not finite."""
    if is_finite([tokens]):
        return tokens.clone()
    return ArithmeticError("the encoder computed infinity or NaN for an image or a sound")


def _key(medium: Media) -> Hashable:
    """What makes media equal, without the features, which would stay in memory with it."""
    return medium.modality, medium.digest


def _batches(media: Iterable[Media]) -> Iterator[list[Media]]:
    """Of one modality and shape each, at most ``AT_ONCE`` long."""
    alike: dict[Hashable, list[Media]] = {}
    for medium in media:
        alike.setdefault((medium.modality, medium.features.shape), []).append(medium)
    for group in alike.values():
        yield from (group[start : start + AT_ONCE] for start in range(0, len(group), AT_ONCE))
