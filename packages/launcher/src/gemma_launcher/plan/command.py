"""Finds the configuration of a model, and prints the plan for it."""

from argparse import Namespace
from pathlib import Path

from gemma_launcher import checkpoint, hub, models
from gemma_launcher.errors import CannotStart
from gemma_launcher.plan.advice import RESERVE, Advice, Wish, advise
from gemma_launcher.plan.memory import parse
from gemma_launcher.plan.report import report
from gemma_launcher.plan.shape import BUILT_IN, Shape
from gemma_launcher.settings import Settings

DEFAULT = "google/gemma-3n-E4B-it"
SMALLER = "google/gemma-3n-E2B-it"


def run(settings: Settings, options: Namespace) -> int:
    """Prints what fits; 1 when nothing does.

    Raises:
        CannotStart: the model or the memory makes no sense, or what is wished for does not fit.
    """
    wish = Wish(
        memory=parse(options.memory),
        context=options.context,
        slots=options.slots,
        table_on_host=options.ple_host,
        text_only=options.text_only,
        dtype=options.dtype,
        reserve=RESERVE if options.reserve is None else parse(options.reserve),
    )
    name = settings.model_name or DEFAULT
    shape, vision_tower = find(settings, name)
    advice = advise(shape, wish, vision_tower)
    print(report(name, shape, wish, advice))
    if advice.fits:
        return 0
    print(_instead(name, wish, options.memory))
    return 1


def find(settings: Settings, name: str) -> tuple[Shape, int | None]:
    """The shape of a model and, where a file is at hand, its vision tower's parameters.

    Looked for in this order: a folder, the built-in descriptions, the hub's cache, the hub.

    Raises:
        CannotStart: there is none.
    """
    folder = settings.gemma_checkpoint or models.local_folder(name)
    if folder is not None:
        if not folder.is_dir():
            raise CannotStart(f"there is no folder {folder}")
        return Shape.read(checkpoint.check_config(folder / "config.json")), _vision_tower(folder)
    if built_in := BUILT_IN.get(name.lower()):
        return Shape.read(built_in), None
    return Shape.read(checkpoint.check_config(hub.config(name, settings.token))), None


def _vision_tower(folder: Path) -> int | None:
    """Parameters of the vision tower in the folder's weights; none without weights."""
    sizes: dict[str, int] = {}
    try:
        for path in folder.glob("*.safetensors"):
            sizes |= checkpoint.sizes(path)
    except CannotStart:  # they need not be whole for a plan
        return None
    return sum(size for name, size in sizes.items() if "vision_tower." in name) if sizes else None


def _instead(name: str, wish: Wish, memory: str) -> str:
    """A way out of too little memory."""
    smaller = Shape.read(BUILT_IN[SMALLER.lower()])
    if name.lower() != SMALLER.lower() and _fits(smaller, wish):
        same = " --text-only" if wish.text_only else ""
        return f"{SMALLER} would: gemma-triton plan --model {SMALLER} --memory {memory}{same}"
    less = ["a shorter --context"] if wish.context else []
    less += ["fewer --slots"] if wish.slots else []
    less += [] if wish.table_on_host else ["--ple-host"]
    less += [] if wish.text_only else ["--text-only"]
    return f"What takes less: {', '.join([*less, 'a smaller --reserve, where the system leaves more'])}."


def _fits(shape: Shape, wish: Wish) -> bool:
    try:
        advice: Advice = advise(shape, wish)
    except CannotStart:
        return False
    return advice.fits
