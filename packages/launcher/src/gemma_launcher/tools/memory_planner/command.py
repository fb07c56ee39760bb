"""``gemma-triton plan``: finds the configuration of a model and prints the memory plan for it."""

import json
import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from gemma_launcher.byte_units import MIB, parse_memory
from gemma_launcher.checkpoints import gguf, hub, resolver, validation
from gemma_launcher.errors import CommandError
from gemma_launcher.settings import LauncherSettings
from gemma_launcher.tools.memory_planner.gguf_format import DENSE_GGUF, format_of_gguf
from gemma_launcher.tools.memory_planner.model_shape import BUILT_IN, DTYPE_BYTES, ModelShape
from gemma_launcher.tools.memory_planner.planner import DEFAULT_RESERVE, PlanRequest, plan_memory
from gemma_launcher.tools.memory_planner.report import as_json, format_report
from gemma_launcher.tools.memory_planner.weight_format import WeightFormat, quantized_at_load
from gemma_wire.gguf import read_gguf
from gemma_wire.gguf_sources import is_gguf

DEFAULT_MODEL = "google/gemma-3n-E4B-it"
SMALLER_MODEL = "google/gemma-3n-E2B-it"
FOUR_BITS = "With 4 bits it fits: add --quantize int4 (GEMMA_QUANTIZE=int4, or `gemma-triton quantize`)."


def run(settings: LauncherSettings, options: Namespace) -> int:
    """Prints what fits; returns 1 when nothing does.

    Raises:
        CommandError: the model is unknown, an amount is invalid, or the requested plan does not fit.
    """
    request = PlanRequest(
        memory=parse_memory("--memory", options.memory, least=MIB),
        context=options.context,
        slots=options.slots,
        ple_on_host=options.ple_host,
        text_only=options.text_only,
        on_cpu=options.device == "cpu",
        dtype=options.dtype,
        reserve=DEFAULT_RESERVE if options.reserve is None else parse_memory("--reserve", options.reserve),
    )
    name = settings.model_name or DEFAULT_MODEL
    shape, stored, vision_tower = find_model(settings, name, options.quantize, options.ple_host)
    request = replace(request, format=stored)
    plan = plan_memory(shape, request, vision_tower)
    advice = []
    if not plan.fits:
        if not stored.name and _fits_with_4_bits(shape, request, vision_tower):
            advice.append(FOUR_BITS)
        advice.append(_suggestion(name, request, options.memory))
    if options.json:
        print(json.dumps({**as_json(name, request, plan), "advice": advice}, indent=2, ensure_ascii=False))
    else:
        print("\n".join([format_report(name, shape, request, plan), *advice]))
    return 0 if plan.fits else 1


def find_model(
    settings: LauncherSettings, name: str, quantize: str | None, table_in_file: bool
) -> tuple[ModelShape, WeightFormat, int | None]:
    """The shape of a model, the format of its weights, and the vision tower's parameters if it is on disk.

    The configuration is read from the first of these that has it: a folder, the built-in table, the hub's
    local cache, the hub.

    Raises:
        CommandError: none has it.
    """
    folder = settings.gemma_checkpoint or resolver.local_folder(name)
    config: Mapping[str, Any]
    if folder is not None:
        if is_gguf(folder):
            folder = gguf.prepare(folder, os.environ)
        if not folder.is_dir():
            raise CommandError(f"there is no folder {folder}")
        config = validation.read_config(folder / "config.json")
        vision_tower = _count_vision_tower(gguf.referenced_encoders(folder) or folder)
    else:
        config = BUILT_IN.get(name.lower()) or validation.read_config(hub.fetch_config(name, settings.token))
        vision_tower = None
    shape = ModelShape.read(config)
    if folder is not None and (files := gguf.referenced_files(folder)):
        found = format_of_gguf(read_gguf(files[0]), DTYPE_BYTES["bfloat16"])
        if not quantize:
            return shape, found, vision_tower
        if found.name != DENSE_GGUF:
            raise CommandError(f"the checkpoint is quantised already: {found.name}")
    return shape, WeightFormat.read(config, shape.text_config, quantize, table_in_file), vision_tower


def _count_vision_tower(folder: Path) -> int | None:
    """Parameters of the vision tower in an ``mmproj`` file or in a folder; ``None`` without valid weights."""
    if folder.suffix == ".gguf":
        tensors = read_gguf(folder).tensors
        return sum(prod(info.shape) for name, info in tensors.items() if name.startswith("v."))
    sizes: dict[str, int] = {}
    try:
        for path in folder.glob("*.safetensors"):
            sizes |= validation.tensor_sizes(path)
    except CommandError:  # a plan does not need the weights
        return None
    return sum(size for name, size in sizes.items() if "vision_tower." in name) if sizes else None


def _suggestion(name: str, request: PlanRequest, memory: str) -> str:
    """What to try when the model does not fit."""
    smaller = ModelShape.read(BUILT_IN[SMALLER_MODEL.lower()])
    if name.lower() != SMALLER_MODEL.lower() and _fits(smaller, request):
        text_only = " --text-only" if request.text_only else ""
        return f"{SMALLER_MODEL} fits: gemma-triton plan --model {SMALLER_MODEL} --memory {memory}{text_only}"
    options = ["a shorter --context"] if request.context else []
    options += ["fewer --slots"] if request.slots else []
    options += [] if request.ple_on_host else ["--ple-host"]
    options += [] if request.text_only else ["--text-only"]
    return f"To save memory: {', '.join([*options, 'a smaller --reserve, if the system leaves more free'])}."


def _fits_with_4_bits(shape: ModelShape, request: PlanRequest, vision_tower: int | None) -> bool:
    stored = quantized_at_load(shape.text_config, "int4", request.ple_on_host)
    return _fits(shape, replace(request, format=stored), vision_tower)


def _fits(shape: ModelShape, request: PlanRequest, vision_tower: int | None = None) -> bool:
    try:
        return plan_memory(shape, request, vision_tower).fits
    except CommandError:
        return False
