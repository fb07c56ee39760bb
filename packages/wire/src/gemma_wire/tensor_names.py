"""Names of tensors in checkpoints, whichever layout the file has.

transformers writes and reads several layouts of the same model. Here a name is what remains without its
wrappers: ``layers.0.…``, ``embed_tokens.weight``, ``vision_tower.…``, ``embed_audio.…``:

    model.language_model.layers.0.…   the published files, and what Gemma3nForConditionalGeneration writes
    language_model.model.layers.0.…   files of before the wrappers were swapped
    model.layers.0.…                  what Gemma3nForCausalLM writes, text alone
"""

from typing import Final

WRAPPERS: Final = ("model.", "language_model.", "model.")  # in this order, each at most once
TOWER_PARTS: Final = ("vision_tower", "audio_tower", "embed_vision", "embed_audio")
"""The parts of a checkpoint besides its text decoder."""


def bare_name(key: str) -> str:
    """``model.language_model.norm.weight`` → ``norm.weight``; every layout gives the same."""
    for wrapper in WRAPPERS:
        key = key.removeprefix(wrapper)
    return key
