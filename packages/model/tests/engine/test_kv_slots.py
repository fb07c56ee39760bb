import pytest

from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.sequence import TokenKey, make_token_keys

WINDOW = 4


def used(slots: KVSlots, owner: int, token_keys: list[TokenKey]) -> int:
    """Run a whole prompt through a slot and leave; which slot it was."""
    slot, reused = slots.acquire(owner, token_keys)
    slots.extend(slot, token_keys[reused:])
    slots.release(slot)
    return slot


def test_the_next_turn_continues_behind_the_last() -> None:
    slots = KVSlots(3, WINDOW, WINDOW)
    first = used(slots, 1, [1, 2, 3, 4, 5, 6, 7, 8])
    used(slots, 2, [9, 9])
    assert slots.acquire(3, [1, 2, 3, 4, 5, 6, 7, 8, 20, 21]) == (first, 8)


def test_the_last_token_of_a_prompt_always_runs() -> None:
    slots = KVSlots(1, WINDOW, WINDOW)
    used(slots, 1, [1, 2, 3])
    assert slots.acquire(2, [1, 2, 3]) == (0, 2)


def test_a_wrapped_ring_gives_back_one_token_and_no_more() -> None:
    slots, long = KVSlots(1, WINDOW, WINDOW), [1, 2, 3, 4, 5, 6, 7, 8]
    used(slots, 1, list(long))
    assert slots.acquire(2, [*long[:7], 99, 98]) == (0, 7)
    slots = KVSlots(1, WINDOW, WINDOW)
    used(slots, 1, list(long))
    assert slots.acquire(2, [*long[:6], 99, 98]) == (0, 0)


def test_positions_lost_by_a_ring_stay_lost_after_truncation() -> None:
    slots = KVSlots(1, WINDOW, WINDOW + 2)
    used(slots, 1, [1, 2, 3, 4, 5, 6, 7, 8])
    assert slots.acquire(2, [1, 2, 3, 4, 5, 99]) == (0, 5)
    slots.release(0)
    assert slots.acquire(3, [1, 2, 3, 99]) == (0, 0)


@pytest.mark.parametrize("choice", [0, 1])
def test_a_fork_of_a_truncated_slot_knows_which_positions_the_rings_lost(choice: int) -> None:
    slots = KVSlots(2, WINDOW, WINDOW + 2)
    used(slots, 1, [1, 2, 3, 4, 5, 6, 7, 8])
    source, reused = slots.acquire(2, [1, 2, 3, 4, 5, 99])
    target, _ = slots.acquire(3, ())
    slots.extend(source, [99])
    slots.fork(source, target)
    slots.release((source, target)[choice])
    assert reused == 5
    assert slots.acquire(4, [1, 2, 3, 4, 5, 98]) == ((source, target)[choice], 5)
    slots.release((source, target)[choice])
    assert slots.acquire(5, [1, 2, 3, 98]) == ((source, target)[choice], 0)


def test_a_longer_ring_gives_back_more() -> None:
    slots = KVSlots(1, WINDOW, WINDOW + 2)
    used(slots, 1, [1, 2, 3, 4, 5, 6, 7, 8])
    assert slots.acquire(2, [1, 2, 3, 4, 5, 99, 98]) == (0, 5)


def test_a_ring_that_never_wrapped_gives_back_anything() -> None:
    slots = KVSlots(1, WINDOW, WINDOW)
    used(slots, 1, [1, 2, 3, 4])
    assert slots.acquire(2, [1, 99, 98]) == (0, 1)


def test_images_are_compared_by_digest() -> None:
    slots = KVSlots(1, 64, 64)
    ids = [7, 0, 0, 0, 8, 9]
    used(slots, 1, make_token_keys(ids, [(1, 3, b"cat")]))
    assert slots.acquire(2, make_token_keys(ids, [(1, 3, b"dog")])) == (0, 1)
    slots.forget()
    used(slots, 1, make_token_keys(ids, [(1, 3, b"cat")]))
    assert slots.acquire(2, make_token_keys(ids, [(1, 3, b"cat")])) == (0, 5)


def test_a_greeting_in_common_does_not_cost_another_its_conversation() -> None:
    slots = KVSlots(2, 64, 64)
    conversation = used(slots, 1, list(range(50)))
    slot, _ = slots.acquire(2, [0, 1, 99, 98])
    assert slot != conversation


def test_without_a_free_empty_slot_the_one_unused_for_longest_goes() -> None:
    slots = KVSlots(2, 64, 64)
    used(slots, 1, [1, 2, 3])
    kept = used(slots, 2, [4, 5, 6])
    slot, reused = slots.acquire(3, [7, 8])
    assert (slot != kept, reused) == (True, 0)


def test_an_untrusted_slot_is_cleared_once_before_its_next_use() -> None:
    slots = KVSlots(2, WINDOW, WINDOW)
    first, _ = slots.acquire(1, [1, 2, 3])
    slots.release(first, trusted=False)
    assert slots.take_to_clear() == (), "nobody uses it"
    taken = [slots.acquire(owner, [1, 2, 3])[0] for owner in (2, 3)]
    assert slots.take_to_clear() == (first,)
    assert slots.take_to_clear() == ()
    for slot in taken:
        slots.release(slot)
    slots.acquire(4, [5])
    assert slots.take_to_clear() == ()
    slots.forget()
    slots.acquire(5, [5])
    slots.acquire(6, [5])
    assert sorted(slots.take_to_clear()) == [0, 1]
