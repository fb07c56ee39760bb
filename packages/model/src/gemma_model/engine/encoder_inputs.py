"""The media of a prompt, as the scheduler and the runner know them."""

from gemma_model.engine.sequence import EncoderInput, Key
from gemma_model.protocol import Generation, Media


def key_of(media: Media, cache_salt: str | None) -> Key:
    """What makes soft tokens equal: who may share them, and what was encoded."""
    return cache_salt, media.modality, media.digest


def encoder_inputs(generation: Generation) -> tuple[EncoderInput, ...]:
    """Every medium of a prompt, in the order of their places."""
    spans = sorted(generation.prompt.spans, key=lambda span: span.start)
    return tuple(
        EncoderInput(key_of(span.media, generation.cache_salt), span.start, span.start + span.length)
        for span in spans
    )


def find_media(generation: Generation, key: Key) -> Media:
    """The medium of a prompt with this key."""
    return next(s.media for s in generation.prompt.spans if key_of(s.media, generation.cache_salt) == key)
