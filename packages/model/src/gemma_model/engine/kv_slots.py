"""The slots of the KV cache: who owns which one."""

from collections.abc import Hashable


class KVSlots:
    """A fixed number of slots.

    Args:
        count: number of slots.
    """

    def __init__(self, count: int) -> None:
        self._owners: list[Hashable] = [None] * count
        self._dirty: set[int] = set()  # slots that may contain numbers that are not finite
        self._to_clear: list[int] = []

    @property
    def count(self) -> int:
        """Number of slots."""
        return len(self._owners)

    @property
    def free(self) -> int:
        """Number of slots without an owner."""
        return self._owners.count(None)

    def owner(self, number: int) -> Hashable:
        """The owner of a slot, or ``None``."""
        return self._owners[number]

    def acquire(self, owner: Hashable) -> int:
        """Give the first free slot to a sequence with this id."""
        number = self._owners.index(None)
        self._owners[number] = owner
        if number in self._dirty:
            self._dirty.remove(number)
            self._to_clear.append(number)
        return number

    def hand_over(self, number: int, owner: Hashable) -> None:
        """Give a slot and its contents to another owner."""
        self._owners[number] = owner

    def release(self, number: int, trusted: bool = True) -> None:
        """Free a slot. Contents that are not trusted are cleared before it is used again."""
        self._owners[number] = None
        if not trusted:
            self._dirty.add(number)

    def release_all(self) -> None:
        """Free all slots; their contents are not trusted."""
        self._owners = [None] * self.count
        self._dirty = set(range(self.count))
        self._to_clear.clear()

    def take_to_clear(self) -> tuple[int, ...]:
        """The slots acquired since the last call whose contents are not trusted."""
        numbers, self._to_clear = tuple(self._to_clear), []
        return numbers
