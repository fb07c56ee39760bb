"""The plan as people read it."""

import math
from collections.abc import Iterable, Sequence

from gemma_launcher.hub import in_bytes
from gemma_launcher.plan.advice import DEFAULT_SLOTS, MEDIA_CACHE, SHARE, Advice, Wish, fitting
from gemma_launcher.plan.count import slot_bytes, table_row, token_bytes
from gemma_launcher.plan.memory import in_gib
from gemma_launcher.plan.shape import FULL, Shape

CONTEXTS = (2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072)


def table(rows: Iterable[Sequence[str]], indent: int = 2) -> list[str]:
    """Columns under each other: the first one to the left, numbers to the right."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *rest in rows:
        cells = [
            first.ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)),
        ]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return lines


def report(name: str, shape: Shape, wish: Wish, advice: Advice) -> str:
    """All of it, without a newline at its end."""
    sections = [_weights(name, shape, wish, advice), _cache(shape, advice), _memory(wish, advice)]
    if advice.room > 0:
        sections.append(_slots(shape, advice))
    sections.append(_settings(name, wish, advice) if advice.fits else _too_large(name, wish, advice))
    return "\n\n".join("\n".join(section) for section in sections)


def _weights(name: str, shape: Shape, wish: Wish, advice: Advice) -> list[str]:
    parameters, item = advice.parameters, advice.item_bytes

    def row(part: str, number: int, where: str) -> tuple[str, str, str, str]:
        return part, _billions(number), in_bytes(number * item), where

    device, file = "device", "stays in the file"
    row_bytes = table_row(shape.text) * item
    host = f"host, mapped from the file; {row_bytes:,} bytes a token"
    rows = [
        ("weights", "parameters", "bytes", "where"),
        row("embeddings, head", parameters.embeddings, device),
        row(f"decoder, {shape.text.layers} layers", parameters.layers, device),
        row("per-layer embeddings", parameters.per_layer_table, host if wish.table_on_host else device),
        row("vision tower", parameters.vision, file if wish.text_only else device),
        row("audio tower", parameters.audio, file if wish.text_only else device),
        row("unused keys, values", parameters.unused, file),
        ("on the device", _billions(advice.weights // item), in_bytes(advice.weights), ""),
    ]
    wide = max(len(cells[3]) for cells in rows)
    aligned = [(*cells[:3], cells[3].ljust(wide)) for cells in rows]
    size = in_bytes(parameters.total * item)
    title = f"{name}: {_billions(parameters.total)} parameters, {size} in {advice.dtype}"
    unknown = (
        [] if parameters.vision_known else ["  (its vision tower cannot be told from the configuration: 0)"]
    )
    return [title, "", *table(aligned), *unknown]


def _cache(shape: Shape, advice: Advice) -> list[str]:
    text, item = shape.text, advice.item_bytes
    full = text.stored.count(FULL)
    sliding = len(text.stored) - full
    each = token_bytes(text, item)
    return [
        f"KV cache of a sequence: {full * each:,} bytes a token in {full} full layers, "
        f"at most {in_gib(sliding * each * text.sliding_window)} in {sliding} sliding ones;",
        f"  {in_gib(slot_bytes(text, text.max_position_embeddings, item))} "
        f"at {text.max_position_embeddings:,} tokens",
    ]


def _memory(wish: Wish, advice: Advice) -> list[str]:
    slots = max(advice.slots, 1)  # the least that makes sense
    cache = slots * advice.each
    rest = wish.memory - wish.reserve - advice.weights - advice.media_cache - cache
    rows = [
        ("weights", in_gib(advice.weights)),
        ("CUDA, process, system (--reserve)", in_gib(wish.reserve)),
        ("what towers made of media, at most", in_gib(advice.media_cache)),
        (f"KV cache, {slots} × {advice.context:,} tokens", in_gib(cache)),
        ("headroom, for activations" if rest >= 0 else "too little by", in_gib(abs(rest))),
    ]
    return [f"memory: {in_gib(wish.memory)}", *table(rows)]


def _slots(shape: Shape, advice: Advice) -> list[str]:
    contexts = [n for n in CONTEXTS if n < shape.text.max_position_embeddings]
    contexts.append(shape.text.max_position_embeddings)
    sizes = [slot_bytes(shape.text, n, advice.item_bytes) for n in contexts]
    return table(
        [
            ("context", *(f"{n:,}" for n in contexts)),
            ("bytes of a slot", *map(in_gib, sizes)),
            ("slots that fit", *(str(fitting(size, advice.room)) for size in sizes)),
        ],
        indent=0,
    )


def _settings(name: str, wish: Wish, advice: Advice) -> list[str]:
    settings: dict[str, object] = {
        "MODEL_NAME": name,
        "GEMMA_MAX_MODEL_LEN": advice.context,
        "GEMMA_MAX_NUM_SEQS": advice.slots,
        "GEMMA_PLE": "host" if wish.table_on_host else "device",
    }
    if wish.text_only:
        settings["GEMMA_TOWERS"] = "none"
    if advice.media_cache not in (0, MEDIA_CACHE):
        settings["GEMMA_MEDIA_CACHE_BYTES"] = advice.media_cache
    if wish.dtype:
        settings["GEMMA_DTYPE"] = wish.dtype
    note = f" (the default is {DEFAULT_SLOTS} slots)" if advice.slots < DEFAULT_SLOTS else ""
    return [f"settings{note}:", *(f"  {variable}={value}" for variable, value in settings.items())]


def _too_large(name: str, wish: Wish, advice: Advice) -> list[str]:
    slots = max(advice.slots, 1)
    media = MEDIA_CACHE if advice.media_cache else 0
    needed = advice.weights + wish.reserve + media + math.ceil(slots * advice.each / SHARE)
    return [f"{name} does not fit: {slots} × {advice.context:,} tokens need about {in_gib(needed)}."]


def _billions(number: int) -> str:
    return f"{number / 1e9:.2f} G" if number >= 1e7 else f"{number:,}"
