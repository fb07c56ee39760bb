"""The memory plan as text."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from gemma_launcher.byte_units import format_bytes, format_gib
from gemma_launcher.tools.memory_planner.kv_cache_size import PREFILL_CHUNK, kv_slot_bytes, kv_token_bytes
from gemma_launcher.tools.memory_planner.model_shape import FULL, ModelShape
from gemma_launcher.tools.memory_planner.parameter_count import per_layer_row
from gemma_launcher.tools.memory_planner.planner import (
    CACHE_SHARE,
    DEFAULT_SLOTS,
    MEDIA_CACHE_BYTES,
    PREFIX_CACHE_SHARE,
    MemoryPlan,
    PlanRequest,
    slots_that_fit,
)

CONTEXTS = (2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072)


def format_table(rows: Iterable[Sequence[str]], indent: int = 2) -> list[str]:
    """Aligned columns: the first to the left, the others to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return lines


def format_report(name: str, shape: ModelShape, request: PlanRequest, plan: MemoryPlan) -> str:
    """The complete report, without a newline at its end."""
    sections = [_weights(name, shape, request, plan), _kv_cache(shape, plan), _memory(request, plan)]
    if plan.cache_limit > 0:
        sections.append(_slots(shape, plan))
    sections.append(_settings(name, request, plan) if plan.fits else _too_large(name, request, plan))
    return "\n\n".join("\n".join(section) for section in sections)


def _weights(name: str, shape: ModelShape, request: PlanRequest, plan: MemoryPlan) -> list[str]:
    parameters, item = plan.parameters, plan.item_bytes
    mapped = "mapped from the file" if request.on_cpu else "device"
    towers = "stays in the file" if request.text_only else mapped
    stored, layers = request.format, shape.text_config.num_hidden_layers
    table = stored.per_layer_table(parameters, item)
    row_bytes = per_layer_row(shape.text_config) * table // max(1, parameters.per_layer_table)
    host = f"host, mapped from the file; {row_bytes:,} bytes a token"
    table_at = host if request.ple_on_host else "device"
    on_device = parameters.decoder + (0 if request.towers_in_file else parameters.towers)
    on_device += 0 if request.ple_on_host else parameters.per_layer_table
    parts = (
        ("embeddings, head", parameters.embeddings, stored.embeddings(parameters, item), "device"),
        (f"decoder, {layers} layers", parameters.layers, stored.layers(parameters, item), "device"),
        ("per-layer embeddings", parameters.per_layer_table, table, table_at),
        ("vision tower", parameters.vision, parameters.vision * item, towers),
        ("audio tower", parameters.audio, parameters.audio * item, towers),
        ("unused keys, values", parameters.unused, parameters.unused * item, "stays in the file"),
        ("on the device", on_device, plan.weights, ""),
    )
    wide = max(len(part[-1]) for part in parts)
    rows = [(part, _billions(n), format_bytes(size), at.ljust(wide)) for part, n, size, at in parts if n]
    size = format_bytes(parameters.total * item)
    title = f"{name}: {_billions(parameters.total)} parameters, {size} in {plan.dtype}"
    if stored.name:
        title = f"{name}: {_billions(parameters.total)} parameters; {stored.name}; the rest in {plan.dtype}"
    unknown = "  (the vision tower cannot be counted from the configuration alone: 0)"
    header = ("weights", "parameters", "bytes", "where".ljust(wide))
    return [title, "", *format_table([header, *rows]), *([] if parameters.vision_known else [unknown])]


def _kv_cache(shape: ModelShape, plan: MemoryPlan) -> list[str]:
    text, item = shape.text_config, plan.item_bytes
    full = text.kv_layer_types.count(FULL)
    sliding = len(text.kv_layer_types) - full
    token = kv_token_bytes(text, item)
    ring = sliding * token * (text.sliding_window + PREFILL_CHUNK)
    return [
        f"KV cache of a sequence: {full * token:,} bytes a token in {full} full-attention layers, "
        f"at most {format_gib(ring)} in {sliding} sliding-window layers;",
        f"  {format_gib(kv_slot_bytes(text, text.max_position_embeddings, item))} "
        f"at {text.max_position_embeddings:,} tokens",
    ]


def _memory(request: PlanRequest, plan: MemoryPlan) -> list[str]:
    slots = max(plan.slots, 1)
    cache, prefix_cache, headroom = _caches(request, plan)
    rows = [
        ("weights", format_gib(plan.weights)),
        ("CUDA, process, system (--reserve)", format_gib(request.reserve)),
        ("encoder cache (images, audio), at most", format_gib(plan.media_cache)),
        (f"KV cache, {slots} × {plan.context:,} tokens", format_gib(cache)),
        ("prefix cache, at most", format_gib(prefix_cache)),
        ("headroom, for activations" if headroom >= 0 else "missing", format_gib(abs(headroom))),
    ]
    return [f"memory: {format_gib(request.memory)}", *format_table(rows)]


def _slots(shape: ModelShape, plan: MemoryPlan) -> list[str]:
    longest = shape.text_config.max_position_embeddings
    contexts = [*(n for n in CONTEXTS if n < longest), longest]
    sizes = [kv_slot_bytes(shape.text_config, n, plan.item_bytes) for n in contexts]
    return format_table(
        [
            ("context", *(f"{n:,}" for n in contexts)),
            ("bytes of a slot", *map(format_gib, sizes)),
            ("slots that fit", *(str(slots_that_fit(size, plan.cache_limit)) for size in sizes)),
        ],
        indent=0,
    )


def _caches(request: PlanRequest, plan: MemoryPlan) -> tuple[int, int, int]:
    """Bytes of the KV cache, at most of the prefix cache, and of what is left, negative if it is missing."""
    kv_cache = max(plan.slots, 1) * plan.slot_bytes
    rest = request.memory - request.reserve - plan.weights - plan.media_cache - kv_cache
    prefix_cache = int(max(0, rest) * PREFIX_CACHE_SHARE)
    return kv_cache, prefix_cache, rest - prefix_cache


def as_json(name: str, request: PlanRequest, plan: MemoryPlan) -> dict[str, Any]:
    """The plan for other programs; sizes in bytes. ``headroom_bytes`` is negative if memory is missing."""
    kv_cache, prefix_cache, headroom = _caches(request, plan)
    return {
        "model": name,
        "fits": plan.fits,
        "parameters": plan.parameters.total,
        "dtype": plan.dtype,
        "format": request.format.name or None,
        "context": plan.context,
        "slots": plan.slots,
        "memory_bytes": request.memory,
        "weights_bytes": plan.weights,
        "reserve_bytes": request.reserve,
        "encoder_cache_bytes": plan.media_cache,
        "kv_cache_bytes": kv_cache,
        "prefix_cache_bytes": prefix_cache,
        "headroom_bytes": headroom,
        "settings": _variables(name, request, plan) if plan.fits else {},
    }


def _settings(name: str, request: PlanRequest, plan: MemoryPlan) -> list[str]:
    settings = _variables(name, request, plan)
    note = f" (the default is {DEFAULT_SLOTS} slots)" if plan.slots < DEFAULT_SLOTS else ""
    return [f"settings{note}:", *(f"  {variable}={value}" for variable, value in settings.items())]


def _variables(name: str, request: PlanRequest, plan: MemoryPlan) -> dict[str, object]:
    settings: dict[str, object] = {
        "MODEL_NAME": name,
        "GEMMA_MAX_MODEL_LEN": plan.context,
        "GEMMA_MAX_NUM_SEQS": plan.slots,
    }
    if plan.parameters.per_layer_table:
        settings["GEMMA_PLE"] = "host" if request.ple_on_host else "device"
    if request.text_only:
        settings["GEMMA_TOWERS"] = "none"
    if plan.media_cache not in (0, MEDIA_CACHE_BYTES):
        settings["GEMMA_MEDIA_CACHE_BYTES"] = plan.media_cache
    if request.format.at_load:
        settings["GEMMA_QUANTIZE"] = request.format.at_load
    if request.dtype:
        settings["GEMMA_DTYPE"] = request.dtype
    return settings


def _too_large(name: str, request: PlanRequest, plan: MemoryPlan) -> list[str]:
    slots = max(plan.slots, 1)
    media = MEDIA_CACHE_BYTES if plan.media_cache else 0
    needed = plan.weights + request.reserve + media + math.ceil(slots * plan.slot_bytes / CACHE_SHARE)
    return [f"{name} does not fit: {slots} × {plan.context:,} tokens need about {format_gib(needed)}."]


def _billions(number: int) -> str:
    return f"{number / 1e9:.2f} G" if number >= 1e7 else f"{number:,}"
