"""Who owns which cache slot, and what its last owner left there for the next."""

from collections.abc import Hashable, Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from itertools import takewhile

from gemma_model.engine.sequence import Key


@dataclass
class _Slot:
    number: int
    owner: Hashable = None
    stored: list[Key] = field(default_factory=list)  # position by position
    written: int = 0  # one beyond the last position in the rings; more than is stored once that was cut back
    last_used: int = 0
    dirty: bool = False  # may hold numbers that are not finite


class Slots:
    """A fixed number of slots.

    A slot whose owner is gone keeps its keys and values. A new owner whose prompt begins with the same tokens
    continues behind them, if the rings of the sliding layers still hold what that needs.

    Args:
        count: of slots.
        window: positions that a sliding layer sees, the token's own among them.
        ring: positions that a sliding layer keeps.
    """

    def __init__(self, count: int, window: int, ring: int) -> None:
        self._slots = [_Slot(number) for number in range(count)]
        self._window, self._ring, self._clock = window, ring, 0
        self._to_clear: list[int] = []

    @property
    def count(self) -> int:
        """All slots."""
        return len(self._slots)

    @property
    def free(self) -> int:
        """Slots that nobody owns."""
        return sum(slot.owner is None for slot in self._slots)

    def owner(self, number: int) -> Hashable:
        """Who owns that slot; ``None`` when nobody does."""
        return self._slots[number].owner

    def acquire(self, owner: Hashable, keys: Many[Key]) -> tuple[int, int]:
        """Give a free slot to a sequence.

        Args:
            owner: its name.
            keys: its prompt, or as much of it as may be reused.

        Returns:
            The slot, and how many of the prompt's tokens are in it already: never all of them, for the last
            one has to run to give logits.
        """
        slot = max(
            (slot for slot in self._slots if slot.owner is None), key=lambda slot: self._merit(slot, keys)
        )
        reused = self._reusable(slot, keys)
        if slot.dirty:
            slot.dirty = False
            self._to_clear.append(slot.number)
        del slot.stored[reused:]
        slot.owner, slot.written = owner, slot.written if reused else 0
        return slot.number, reused

    def extend(self, number: int, keys: Iterable[Key]) -> None:
        """Note that the next positions of a slot were written."""
        slot = self._slots[number]
        slot.stored.extend(keys)
        slot.written = max(slot.written, len(slot.stored))

    def fork(self, source: int, target: int) -> None:
        """Note that one slot has become a copy of another."""
        original, copy = self._slots[source], self._slots[target]
        copy.stored, copy.written = list(original.stored), original.written

    def hand_over(self, number: int, owner: Hashable) -> None:
        """Give a slot to another owner, with what it holds."""
        self._slots[number].owner = owner

    def release(self, number: int, trusted: bool = True) -> None:
        """Free a slot; what it holds, if that can be trusted, stays for whoever begins the same way.

        Else the slot has to be cleared before anybody uses it again: see ``take_to_clear``.
        """
        if not trusted:
            self._slots[number] = _Slot(number, dirty=True)
            return
        self._clock += 1
        self._slots[number].owner, self._slots[number].last_used = None, self._clock

    def forget(self) -> None:
        """Free all slots and trust none of their contents."""
        self._slots = [_Slot(slot.number, dirty=True) for slot in self._slots]
        self._to_clear.clear()

    def take_to_clear(self) -> tuple[int, ...]:
        """The slots acquired since the last call whose contents could not be trusted."""
        numbers, self._to_clear = tuple(self._to_clear), []
        return numbers

    def _merit(self, slot: _Slot, keys: Many[Key]) -> tuple[int, bool, int, int]:
        """Best: much to reuse and little to lose. Else an empty slot, else the one unused for longest."""
        reused = self._reusable(slot, keys)
        lost = len(slot.stored) - reused
        return max(0, reused - lost), not slot.stored, -slot.last_used, -slot.number

    def _reusable(self, slot: _Slot, keys: Many[Key]) -> int:
        pairs = zip(slot.stored, keys[:-1], strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        oldest_kept = slot.written - self._ring
        oldest_needed = max(0, common - self._window + 1)
        return common if oldest_kept <= oldest_needed else 0
