"""Smaller models nested in a checkpoint (MatFormer, https://arxiv.org/abs/2310.07707), and which are served.

A nested model has the first neurons of each layer's MLP, and leaves some layers out. The notebook "MatFormer
Lab" of Google's Gemma cookbook defines which parts of a checkpoint it has:

    gate_proj, up_proj              rows ``[:size]``
    down_proj                       columns ``[:size]``
    per_layer_model_projection      the rows of its layers, P each
    embed_tokens_per_layer          the columns of its layers, P each

The sizes below are from the dataset google/gemma3n-slicing-configs on the Hugging Face hub.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma_model.families import GEMMA3N, family_of
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.settings import Settings
from gemma_wire import InvalidRequest

OUTER_NAME = "E4B"
"""What the names of published checkpoints with nested models contain."""


@dataclass(frozen=True)
class NestedModel:
    """The layers of a nested model.

    Args:
        intermediate_size: of each of its layers.
        skipped: layers that are left out: the first of those that share keys and values.
    """

    intermediate_size: tuple[int, ...]
    skipped: tuple[int, ...] = ()

    def check(self, config: Gemma3nDecoderConfig) -> None:
        """Check that a checkpoint has this model.

        Raises:
            InvalidRequest: naming the number that does not fit.
        """
        first = config.first_kv_shared_layer
        if self.skipped != tuple(range(first, first + len(self.skipped))):
            raise InvalidRequest(
                f"skips the layers {list(self.skipped)}; only layers that store no keys and values can be "
                f"left out, and of those ({first} to {config.num_hidden_layers - 1}) the first",
                "variants",
            )
        kept = [number for number in range(config.num_hidden_layers) if number not in self.skipped]
        if len(self.intermediate_size) != len(kept):
            raise InvalidRequest(
                f"has {len(self.intermediate_size)} sizes for the {len(kept)} remaining layers", "variants"
            )
        for number, size in zip(kept, self.intermediate_size, strict=True):
            if not 0 < size <= config.intermediate_size[number]:
                limit = config.intermediate_size[number]
                raise InvalidRequest(
                    f"has a size of {size} for layer {number}, which has {limit} neurons", "variants"
                )

    def size_of(self, layer: int) -> int:
        """The intermediate size of a layer, by its number in the checkpoint."""
        return self.intermediate_size[layer - sum(skipped < layer for skipped in self.skipped)]


def _layers(count: int, wide: tuple[int, ...] = (), skipped: tuple[int, ...] = ()) -> NestedModel:
    """``count`` layers of 8,192 neurons, but of 16,384 in the wide ones."""
    return NestedModel(tuple(16_384 if layer in wide else 8_192 for layer in range(count)), skipped)


PUBLISHED: Mapping[str, NestedModel] = {
    "E2B": _layers(30, skipped=(20, 21, 22, 23, 24)),
    "E1.96B": _layers(30, wide=(4,), skipped=(20, 21, 22, 23, 24)),
    "E2.54B": _layers(35, wide=(4, 20, 21, 22, 23, 24)),
}
"""Models nested in E4B; the numbers of wide layers are those of the nested model."""


def served_nested_models(config: Mapping[str, Any], settings: Settings) -> dict[str, NestedModel]:
    """Served name → nested model, as ``settings.variants`` says.

    Args:
        config: ``config.json`` of the checkpoint.
        settings: of the model.

    Raises:
        InvalidRequest: when a name is unknown, or the checkpoint does not have such a model.
    """
    if settings.engine != "native" or settings.variants == "none":
        return {}
    if (family := family_of(config)) is not GEMMA3N:
        if settings.variants != "auto":
            raise InvalidRequest(f"{family.name} has no nested models; use auto or none", "variants")
        return {}
    text = Gemma3nDecoderConfig.read(config)
    if settings.variants == "auto":
        wanted = {"E2B": PUBLISHED["E2B"]} if _is_e4b(text) else {}
    elif settings.variants.endswith(".json"):
        wanted = _read(Path(settings.variants))
    else:
        wanted = {name: _published(name) for name in map(str.strip, settings.variants.split(","))}
    for nested in wanted.values():
        nested.check(text)
    return {_served_name(settings.public_name, name): nested for name, nested in wanted.items()}


def _is_e4b(config: Gemma3nDecoderConfig) -> bool:
    """Whether the published sizes are those of this checkpoint, and would not only fit."""
    return config.num_hidden_layers == 35 and set(config.intermediate_size) == {16_384}


def _published(name: str) -> NestedModel:
    if name not in PUBLISHED:
        known = f"use {', '.join(PUBLISHED)}, auto, none, or a .json file"
        raise InvalidRequest(f"there is no nested model {name!r}; {known}", "variants")
    return PUBLISHED[name]


def _read(file: Path) -> dict[str, NestedModel]:
    """``{"name": {"intermediate_size": [...], "skipped": [...]}}``."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {name: _parse(entry) for name, entry in content.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidRequest(f"cannot read {file}: {type(error).__name__}: {error}", "variants") from None


def _parse(entry: Mapping[str, list[int]]) -> NestedModel:
    return NestedModel(tuple(map(int, entry["intermediate_size"])), tuple(map(int, entry.get("skipped", ()))))


def _served_name(outer: str, name: str) -> str:
    """``google/gemma-3n-E4B-it`` has ``google/gemma-3n-E2B-it``; ``my-model`` has ``my-model-E2B``."""
    return outer.replace(OUTER_NAME, name) if OUTER_NAME in outer else f"{outer}-{name}"
