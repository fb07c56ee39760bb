from gemma_model.engine.kv_slots import KVSlots


def test_the_first_free_slot_is_taken() -> None:
    slots = KVSlots(3)
    assert [slots.acquire(owner) for owner in "abc"] == [0, 1, 2]
    slots.release(1)
    assert (slots.free, slots.owner(1), slots.owner(2)) == (1, None, "c")
    assert slots.acquire("d") == 1


def test_an_untrusted_slot_is_cleared_once_before_its_next_use() -> None:
    slots = KVSlots(2)
    first = slots.acquire(1)
    slots.release(first, trusted=False)
    assert slots.take_to_clear() == (), "nobody uses it"
    taken = [slots.acquire(owner) for owner in (2, 3)]
    assert slots.take_to_clear() == (first,)
    assert slots.take_to_clear() == ()
    for slot in taken:
        slots.release(slot)
    slots.acquire(4)
    assert slots.take_to_clear() == ()
    slots.release_all()
    slots.acquire(5)
    slots.acquire(6)
    assert sorted(slots.take_to_clear()) == [0, 1]
