"""The slots of the KV cache: who owns which one, and prefix reuse."""

from collections.abc import Hashable, Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from itertools import takewhile

from gemma_model.engine.sequence import TokenKey


@dataclass
class _Slot:
    number: int
    owner: Hashable = None
    stored: list[TokenKey] = field(default_factory=list)  # by position
    # one more than the last position ever written to the rings; exceeds what is stored after a cut
    max_written_len: int = 0
    last_used: int = 0
    dirty: bool = False  # may contain numbers that are not finite


class KVSlots:
    """A fixed number of slots.

    A slot keeps its keys and values when its owner leaves. A new owner whose prompt begins with the same
    tokens continues after them, if the ring buffers of the sliding-window layers still hold what it needs.

    Args:
        count: number of slots.
        window: positions that a sliding-window layer sees, including the token's own.
        ring: positions that a sliding-window layer keeps.
    """

    def __init__(self, count: int, window: int, ring: int) -> None:
        self._slots = [_Slot(number) for number in range(count)]
        self._window, self._ring, self._clock = window, ring, 0
        self._to_clear: list[int] = []

    @property
    def count(self) -> int:
        """Number of slots."""
        return len(self._slots)

    @property
    def free(self) -> int:
        """Number of slots without an owner."""
        return sum(slot.owner is None for slot in self._slots)

    def owner(self, number: int) -> Hashable:
        """The owner of a slot, or ``None``."""
        return self._slots[number].owner

    def acquire(self, owner: Hashable, token_keys: Many[TokenKey]) -> tuple[int, int]:
        """Give a free slot to a sequence.

        Args:
            owner: id of the sequence.
            token_keys: of its prompt, or of the part that may be reused.

        Returns:
            The slot, and how many tokens of the prompt are in it already: never all of them, because the last
            one has to run to give logits.
        """
        slot = max(
            (slot for slot in self._slots if slot.owner is None),
            key=lambda slot: self._score(slot, token_keys),
        )
        reused = self._reusable(slot, token_keys)
        if slot.dirty:
            slot.dirty = False
            self._to_clear.append(slot.number)
        del slot.stored[reused:]
        slot.owner, slot.max_written_len = owner, slot.max_written_len if reused else 0
        return slot.number, reused

    def extend(self, number: int, token_keys: Iterable[TokenKey]) -> None:
        """Note that the next positions of a slot were written."""
        slot = self._slots[number]
        slot.stored.extend(token_keys)
        slot.max_written_len = max(slot.max_written_len, len(slot.stored))

    def fork(self, source: int, target: int) -> None:
        """Note that one slot has become a copy of another."""
        original, copy = self._slots[source], self._slots[target]
        copy.stored, copy.max_written_len = list(original.stored), original.max_written_len

    def hand_over(self, number: int, owner: Hashable) -> None:
        """Give a slot and its contents to another owner."""
        self._slots[number].owner = owner

    def release(self, number: int, trusted: bool = True) -> None:
        """Free a slot. Trusted contents stay for the next owner with the same prefix.

        Other contents must be cleared before the slot is used again: see ``take_to_clear``.
        """
        if not trusted:
            self._slots[number] = _Slot(number, dirty=True)
            return
        self._clock += 1
        self._slots[number].owner, self._slots[number].last_used = None, self._clock

    def forget(self) -> None:
        """Free all slots; their contents are not trusted."""
        self._slots = [_Slot(slot.number, dirty=True) for slot in self._slots]
        self._to_clear.clear()

    def take_to_clear(self) -> tuple[int, ...]:
        """The slots acquired since the last call whose contents are not trusted."""
        numbers, self._to_clear = tuple(self._to_clear), []
        return numbers

    def _score(self, slot: _Slot, token_keys: Many[TokenKey]) -> tuple[int, bool, int, int]:
        """Highest: much to reuse and little to lose; then an empty slot; then the least recently used."""
        reused = self._reusable(slot, token_keys)
        lost = len(slot.stored) - reused
        return max(0, reused - lost), not slot.stored, -slot.last_used, -slot.number

    def _reusable(self, slot: _Slot, token_keys: Many[TokenKey]) -> int:
        pairs = zip(slot.stored, token_keys[:-1], strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        oldest_kept = slot.max_written_len - self._ring
        oldest_needed = max(0, common - self._window + 1)
        return common if oldest_kept <= oldest_needed else 0
