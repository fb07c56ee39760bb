"""Checks that the KV cache and the prefix cache fit the memory, before they are allocated."""

from collections.abc import Callable

from gemma_wire import InvalidRequest

MIB, GIB = 2**20, 2**30
SHARE = 0.9  # of what is free; the rest is for activations
PREFIX_CACHE_SHARE = 0.25  # of what the model and the KV cache leave free


def check_fits(bytes_per_slot: Callable[[int], int], slots: int, length: int, free: int | None) -> str:
    """The size of the KV cache, as a line for the log.

    Args:
        bytes_per_slot: takes the number of positions of a slot.
        slots: number of slots.
        length: positions of each.
        free: bytes on the device; ``None`` if unknown.

    Raises:
        InvalidRequest: it is too large; says what would fit.
    """
    each = bytes_per_slot(length)
    total = f"{slots * each / GIB:,.2f} GiB in total"
    line = f"{slots} slots of {length:,} tokens, {each / MIB:,.1f} MiB each, {total}"
    room = None if free is None else int(free * SHARE)
    if room is None or slots * each <= room:
        return line
    raise InvalidRequest(
        f"{slots}: the KV cache would be {line}, but only {room / GIB:,.2f} GiB are available. "
        f"These would fit: max_num_seqs={room // each} with {length:,} tokens each, or {slots} requests with "
        f"max_model_len={longest(bytes_per_slot, room // slots, length)}",
        "max_num_seqs",
    )


def prefix_cache_size(wanted: int | None, free: int | None) -> int:
    """Bytes of the prefix cache.

    Args:
        wanted: bytes; ``None``: a share of what is free.
        free: bytes on the device that the model and the KV cache leave; ``None`` if unknown.

    Raises:
        InvalidRequest: more is wanted than is free.
    """
    if wanted is None:
        return 0 if free is None else max(0, int(free * PREFIX_CACHE_SHARE))
    if free is not None and wanted > free:
        message = f"{wanted}: the prefix cache does not fit, {max(0, free)} bytes are available"
        raise InvalidRequest(message, "prefix_cache_bytes")
    return wanted


def longest(bytes_per_slot: Callable[[int], int], room: int, length: int) -> int:
    """Maximum number of positions, up to ``length``, whose slot fits ``room`` bytes."""
    fits, too_long = 0, length + 1
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (middle, too_long) if bytes_per_slot(middle) <= room else (fits, middle)
    return fits
