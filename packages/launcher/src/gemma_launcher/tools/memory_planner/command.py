"""``gemma-triton plan``: finds the configuration of a model and prints the memory plan for it."""

from argparse import Namespace
from pathlib import Path

from gemma_launcher.byte_units import parse_bytes
from gemma_launcher.checkpoints import hub, resolver, validation
from gemma_launcher.errors import CommandError
from gemma_launcher.settings import LauncherSettings
from gemma_launcher.tools.memory_planner.model_shape import BUILT_IN, ModelShape
from gemma_launcher.tools.memory_planner.planner import DEFAULT_RESERVE, PlanRequest, plan_memory
from gemma_launcher.tools.memory_planner.report import format_report

DEFAULT_MODEL = "google/gemma-3n-E4B-it"
SMALLER_MODEL = "google/gemma-3n-E2B-it"


def run(settings: LauncherSettings, options: Namespace) -> int:
    """Prints what fits; returns 1 when nothing does.

    Raises:
        CommandError: the model is unknown, an amount is invalid, or the requested plan does not fit.
    """
    request = PlanRequest(
        memory=parse_bytes(options.memory),
        context=options.context,
        slots=options.slots,
        rewind=options.rewind,
        ple_on_host=options.ple_host,
        text_only=options.text_only,
        dtype=options.dtype,
        reserve=DEFAULT_RESERVE if options.reserve is None else parse_bytes(options.reserve),
    )
    name = settings.model_name or DEFAULT_MODEL
    shape, vision_tower = find_model_shape(settings, name)
    plan = plan_memory(shape, request, vision_tower)
    print(format_report(name, shape, request, plan))
    if plan.fits:
        return 0
    print(_suggestion(name, request, options.memory))
    return 1


def find_model_shape(settings: LauncherSettings, name: str) -> tuple[ModelShape, int | None]:
    """The shape of a model and, where its weights are on disk, the parameters of its vision tower.

    The configuration is read from the first of these that has it: a folder, the built-in table, the hub's
    local cache, the hub.

    Raises:
        CommandError: none has it.
    """
    folder = settings.gemma_checkpoint or resolver.local_folder(name)
    if folder is not None:
        if not folder.is_dir():
            raise CommandError(f"there is no folder {folder}")
        return ModelShape.read(validation.read_config(folder / "config.json")), _count_vision_tower(folder)
    config = BUILT_IN.get(name.lower()) or validation.read_config(hub.fetch_config(name, settings.token))
    return ModelShape.read(config), None


def _count_vision_tower(folder: Path) -> int | None:
    """Parameters of the vision tower in the weights of a folder; ``None`` without valid weights."""
    sizes: dict[str, int] = {}
    try:
        for path in folder.glob("*.safetensors"):
            sizes |= validation.tensor_sizes(path)
    except CommandError:  # a plan does not need the weights
        return None
    return sum(size for name, size in sizes.items() if "vision_tower." in name) if sizes else None


def _suggestion(name: str, request: PlanRequest, memory: str) -> str:
    """What to try when the model does not fit."""
    if name.lower() != SMALLER_MODEL.lower() and _fits(SMALLER_MODEL, request):
        text_only = " --text-only" if request.text_only else ""
        return f"{SMALLER_MODEL} fits: gemma-triton plan --model {SMALLER_MODEL} --memory {memory}{text_only}"
    options = ["a shorter --context"] if request.context else []
    options += ["fewer --slots"] if request.slots else []
    options += [] if request.ple_on_host else ["--ple-host"]
    options += [] if request.text_only else ["--text-only"]
    return f"To save memory: {', '.join([*options, 'a smaller --reserve, if the system leaves more free'])}."


def _fits(name: str, request: PlanRequest) -> bool:
    try:
        return plan_memory(ModelShape.read(BUILT_IN[name.lower()]), request).fits
    except CommandError:
        return False
