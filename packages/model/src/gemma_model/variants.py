"""Which nested models are served beside a checkpoint's own, and under which names."""

import json
from collections.abc import Mapping
from pathlib import Path

from gemma_model.models.gemma3n.config import TextConfig
from gemma_model.models.gemma3n.nested_models import PUBLISHED, Slice
from gemma_model.settings import Settings
from gemma_wire import InvalidRequest

WHOLE = "E4B"  # what the published checkpoints that hold others are called


def variants_of(folder: Path, settings: Settings) -> dict[str, Slice]:
    """Served name → nested model, as ``settings.variants`` says.

    Args:
        folder: of the checkpoint.
        settings: the model's.

    Raises:
        InvalidRequest: when a name is unknown, or the checkpoint does not hold such a model.
    """
    if settings.engine != "native" or settings.variants == "none":
        return {}
    config = TextConfig.read(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if settings.variants == "auto":
        wanted = {"E2B": PUBLISHED["E2B"]} if _is_e4b(config) else {}
    elif settings.variants.endswith(".json"):
        wanted = _read(Path(settings.variants))
    else:
        wanted = {name: _published(name) for name in map(str.strip, settings.variants.split(","))}
    for nested in wanted.values():
        nested.check(config)
    return {_served(settings.public_name, name): nested for name, nested in wanted.items()}


def _is_e4b(config: TextConfig) -> bool:
    """Whether this is the checkpoint that the published slices are of, not just one that could be cut so."""
    return config.num_hidden_layers == 35 and set(config.intermediate_size) == {16_384}


def _published(name: str) -> Slice:
    if name not in PUBLISHED:
        known = f"{', '.join(PUBLISHED)} are, and auto, none, and a .json file"
        raise InvalidRequest(f"{name!r} is not known; {known}", "variants")
    return PUBLISHED[name]


def _read(file: Path) -> dict[str, Slice]:
    """``{"name": {"intermediate_size": [...], "skipped": [...]}}``."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {name: _slice(entry) for name, entry in content.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidRequest(f"cannot read {file}: {type(error).__name__}: {error}", "variants") from None


def _slice(entry: Mapping[str, list[int]]) -> Slice:
    return Slice(tuple(map(int, entry["intermediate_size"])), tuple(map(int, entry.get("skipped", ()))))


def _served(whole: str, name: str) -> str:
    """``google/gemma-3n-E4B-it`` holds ``google/gemma-3n-E2B-it``; ``my-model`` holds ``my-model-E2B``."""
    return whole.replace(WHOLE, name) if WHOLE in whole else f"{whole}-{name}"
