"""Which context length and how many slots fit into a given amount of memory. Pure functions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gemma_launcher.byte_units import GIB, MIB, format_gib
from gemma_launcher.errors import CommandError
from gemma_launcher.tools.memory_planner.kv_cache_size import kv_slot_bytes
from gemma_launcher.tools.memory_planner.model_shape import COMPUTE_DTYPE, DTYPE_BYTES, ModelShape
from gemma_launcher.tools.memory_planner.parameter_count import ParameterCounts, count_parameters
from gemma_launcher.tools.memory_planner.weight_format import DENSE, WeightFormat

DEFAULT_RESERVE: Final = GIB
"""Bytes kept free for CUDA, the process and the system: an assumption, not a measurement."""

CACHE_SHARE: Final = 0.9
"""The engine uses at most this share of the memory that is free after the weights are loaded."""

DEFAULT_SLOTS: Final = 16
MAX_SLOTS: Final = 64
TARGET_SLOTS = 4
MIN_CONTEXT = 2048
"""Without ``--context``, the context is halved down to this until ``TARGET_SLOTS`` requests fit."""

MEDIA_CACHE_BYTES = 256 * MIB
PREFIX_CACHE_SHARE = 0.25
"""The prefix cache takes this share of what everything else leaves free."""


@dataclass(frozen=True)
class PlanRequest:
    """What the user asked for.

    Args:
        memory: bytes of the device.
        context: tokens per request; ``None``: chosen by the planner.
        slots: concurrent requests; ``None``: chosen by the planner.
        ple_on_host: whether the per-layer embeddings stay in the file, mapped into host memory.
        text_only: whether the towers are not loaded, so that image and audio input is off.
        on_cpu: whether a CPU runs the model; the towers then stay in the file, mapped into memory.
        dtype: of the computation; ``None``: as stored.
        reserve: bytes kept free.
        format: of the weights.
    """

    memory: int
    context: int | None = None
    slots: int | None = None
    ple_on_host: bool = True
    text_only: bool = False
    on_cpu: bool = False
    dtype: str | None = None
    reserve: int = DEFAULT_RESERVE
    format: WeightFormat = DENSE

    @property
    def towers_in_file(self) -> bool:
        """Whether the towers stay in the file, mapped or unused."""
        return self.text_only or self.on_cpu


@dataclass(frozen=True)
class MemoryPlan:
    """What fits.

    Args:
        parameters: of the model.
        dtype: of the computation.
        item_bytes: bytes per element.
        weights: bytes on the device.
        media_cache: bytes of the encoder cache (image and audio embeddings).
        cache_limit: bytes available to the KV cache; negative when the weights alone do not fit.
        context: tokens per request.
        slots: concurrent requests; 0 when none fits.
        slot_bytes: bytes of one slot.
    """

    parameters: ParameterCounts
    dtype: str
    item_bytes: int
    weights: int
    media_cache: int
    cache_limit: int
    context: int
    slots: int
    slot_bytes: int

    @property
    def fits(self) -> bool:
        """Whether at least one request can be served."""
        return 0 < self.slots * self.slot_bytes <= self.cache_limit


def plan_memory(shape: ModelShape, request: PlanRequest, vision_tower: int | None = None) -> MemoryPlan:
    """Chooses the largest context and number of slots that fit.

    Raises:
        CommandError: the requested context or number of slots does not fit; the message says what does.
    """
    dtype = request.dtype or COMPUTE_DTYPE[shape.dtype]
    item = DTYPE_BYTES[dtype]
    parameters, weights = count_parameters(shape, vision_tower), request.format
    towers = (shape.vision_config or shape.audio_config) and not request.text_only
    on_device = weights.embeddings(parameters, item) + weights.layers(parameters, item)
    on_device += parameters.towers * item if towers and not request.towers_in_file else 0
    on_device += 0 if request.ple_on_host else weights.per_layer_table(parameters, item)
    media = min(MEDIA_CACHE_BYTES, request.memory // 64) if towers else 0
    limit = int((request.memory - request.reserve - on_device - media) * CACHE_SHARE)

    def slot_bytes(length: int) -> int:
        return kv_slot_bytes(shape.text_config, length, item)

    context, slots = _choose(slot_bytes, limit, request, shape.text_config.max_position_embeddings)
    return MemoryPlan(parameters, dtype, item, on_device, media, limit, context, slots, slot_bytes(context))


def _choose(
    slot_bytes: Callable[[int], int], limit: int, request: PlanRequest, longest: int
) -> tuple[int, int]:
    """Context and slots."""
    context = request.context or longest
    if context > longest:
        raise CommandError(f"a context of {context:,} tokens exceeds the model's {longest:,}")
    if request.context is None:
        target = request.slots or TARGET_SLOTS
        while context > MIN_CONTEXT and slots_that_fit(slot_bytes(context), limit) < target:
            context = max(context // 2, MIN_CONTEXT)
    fitting = slots_that_fit(slot_bytes(context), limit)
    if request.slots is None:
        return context, min(fitting, MAX_SLOTS)
    if limit > 0 and request.slots > fitting:
        needed = format_gib(request.slots * slot_bytes(context))
        raise CommandError(
            f"{request.slots} slots of {context:,} tokens need {needed} of KV cache, but only "
            f"{format_gib(limit)} are available: {fitting} such slots fit"
        )
    return context, request.slots


def slots_that_fit(slot_bytes: int, limit: int) -> int:
    """The number of slots of ``slot_bytes`` bytes in ``limit`` bytes."""
    return max(limit, 0) // slot_bytes
