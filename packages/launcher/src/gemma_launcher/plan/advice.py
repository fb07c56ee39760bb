"""What of a model fits into so much memory, and which settings use it well: pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gemma_launcher.errors import CannotStart
from gemma_launcher.plan.count import Parameters, count, slot_bytes
from gemma_launcher.plan.memory import GIB, MIB, in_gib
from gemma_launcher.plan.shape import ITEM_BYTES, RUNS_AS, Shape

RESERVE: Final = GIB
"""Kept free for CUDA, the process and the system: an assumption, not a measurement."""

SHARE: Final = 0.9
"""The engine gives its cache at most so much of what is free once the weights are loaded."""

DEFAULT_SLOTS: Final = 16
MOST_SLOTS: Final = 64
ENOUGH_SLOTS = 4
SHORTEST = 2048
"""Without a wish, the context is halved down to this until some requests fit beside each other."""

MEDIA_CACHE = 256 * MIB


@dataclass(frozen=True)
class Wish:
    """What was asked for.

    Args:
        memory: of the device, bytes.
        context: tokens; ``None`` leaves it to the advice, as in ``slots``.
        table_on_host: the per-layer embeddings stay in the file.
        text_only: so do the towers, and nothing is seen or heard.
        dtype: of the computation; ``None``: as stored.
    """

    memory: int
    context: int | None = None
    slots: int | None = None
    table_on_host: bool = True
    text_only: bool = False
    dtype: str | None = None
    reserve: int = RESERVE


@dataclass(frozen=True)
class Advice:
    """What fits.

    Args:
        parameters: of the model.
        dtype: of the computation.
        item_bytes: of one number.
        weights: bytes on the device.
        media_cache: bytes for what the towers made of pictures and sounds.
        room: bytes that the cache may take; negative when the weights alone are too much.
        context: tokens of each request.
        slots: requests at once; 0 when nothing fits.
        each: bytes of one slot.
    """

    parameters: Parameters
    dtype: str
    item_bytes: int
    weights: int
    media_cache: int
    room: int
    context: int
    slots: int
    each: int

    @property
    def fits(self) -> bool:
        """Whether at least one request can be served."""
        return 0 < self.slots * self.each <= self.room


def advise(shape: Shape, wish: Wish, vision_tower: int | None = None) -> Advice:
    """The best use of the memory.

    Raises:
        CannotStart: a wish cannot be fulfilled; what could be instead.
    """
    dtype = wish.dtype or RUNS_AS[shape.stored_as]
    item = ITEM_BYTES[dtype]
    parameters = count(shape, vision_tower)
    towers = (shape.vision or shape.audio) and not wish.text_only
    on_device = parameters.decoder + (parameters.towers if towers else 0)
    on_device += 0 if wish.table_on_host else parameters.per_layer_table
    media = min(MEDIA_CACHE, wish.memory // 64) if towers else 0
    room = int((wish.memory - wish.reserve - on_device * item - media) * SHARE)

    def each(length: int) -> int:
        return slot_bytes(shape.text, length, item)

    context, slots = _choose(each, room, wish, shape.text.max_position_embeddings)
    return Advice(parameters, dtype, item, on_device * item, media, room, context, slots, each(context))


def _choose(each: Callable[[int], int], room: int, wish: Wish, longest: int) -> tuple[int, int]:
    """Context and slots."""
    if wish.context is not None and wish.context > longest:
        raise CannotStart(f"a context of {wish.context:,} tokens is more than the model's {longest:,}")
    if wish.slots is not None and wish.context is not None:
        _check(each, room, wish.context, wish.slots)
        return wish.context, wish.slots
    wanted = wish.slots or ENOUGH_SLOTS
    context = wish.context or longest
    while wish.context is None and context > SHORTEST and fitting(each(context), room) < wanted:
        context = max(context // 2, SHORTEST)
    if wish.slots is not None:
        _check(each, room, context, wish.slots)
        return context, wish.slots
    return context, min(fitting(each(context), room), MOST_SLOTS)


def _check(each: Callable[[int], int], room: int, context: int, slots: int) -> None:
    if room > 0 and slots * each(context) > room:
        raise CannotStart(
            f"{slots} slots of {context:,} tokens are {in_gib(slots * each(context))} of cache, and there is "
            f"room for {in_gib(room)}: {fitting(each(context), room)} such slots fit"
        )


def fitting(each: int, room: int) -> int:
    """How many slots of so many bytes fit."""
    return max(room, 0) // each
