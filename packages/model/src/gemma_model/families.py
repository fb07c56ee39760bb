"""The supported model families. A new one is added here and in ``models/loader.py``; no torch.

The launcher has its own list, in ``checkpoints/families.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gemma_wire import InvalidRequest


@dataclass(frozen=True)
class Family:
    """A model family.

    Args:
        name: for messages.
        model_types: values of ``model_type`` in ``config.json``, of a complete model or of its text part.
        vocab_size: transformers' default, for a file without the key.
        max_position_embeddings: the same.
        has_encoders: whether images and audio are supported.
    """

    name: str
    model_types: tuple[str, ...]
    vocab_size: int
    max_position_embeddings: int
    has_encoders: bool


GEMMA3N = Family("Gemma 3n", ("gemma3n", "gemma3n_text"), 262_400, 32_768, has_encoders=True)
GEMMA3 = Family("Gemma 3", ("gemma3", "gemma3_text"), 262_208, 131_072, has_encoders=False)
FAMILIES: Mapping[str, Family] = {
    model_type: family for family in (GEMMA3, GEMMA3N) for model_type in family.model_types
}
"""By ``model_type``."""


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a ``config.json``.

    Raises:
        InvalidRequest: it is not supported; the message names it and those that are.
    """
    model_type = config.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise InvalidRequest(
            f"{model_type!r} is not supported, only {', '.join(FAMILIES)} are", "config.model_type"
        )
    return family
