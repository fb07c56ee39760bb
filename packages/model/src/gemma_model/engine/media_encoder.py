"""Images and audio → soft tokens: each content is encoded once, in parts, and kept while there is room."""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator

import torch
from torch import Tensor

from gemma_model.cpu.kernels import is_finite
from gemma_model.engine.sequence import MediaKey
from gemma_model.engine_types import Media, MediaSpan
from gemma_model.models.model import Encoders
from gemma_wire import InvalidRequest

Encoding = Generator[None, None, Tensor]
"""A run of an encoder that pauses between its parts; it returns ``[1, soft tokens, hidden]``."""
Encode = Callable[[Media], Encoding]


class MediaEncoder:
    """Encodes images and audio in parts, between steps; an LRU cache keeps the soft tokens by media key.

    One medium is encoded at a time. So its result does not depend on others, and memory is bounded.

    Args:
        encode: starts an encoder.
        budget: bytes that are kept in addition to what is needed.
        clock: seconds.
    """

    def __init__(self, encode: Encode, budget: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._encode, self._budget, self._clock = encode, budget, clock
        self._cached: OrderedDict[MediaKey, Tensor] = OrderedDict()
        self._size = 0
        self._needed: Collection[MediaKey] = ()
        self._running: tuple[MediaKey, Encoding] | None = None

    def __contains__(self, key: MediaKey) -> bool:
        """Whether a medium is encoded."""
        return key in self._cached

    def __getitem__(self, key: MediaKey) -> Tensor:
        """Soft tokens ``[soft tokens, hidden]`` of an encoded medium."""
        self._cached.move_to_end(key)
        return self._cached[key]

    def retain(self, needed: Collection[MediaKey]) -> None:
        """Keep these whatever their size; stop encoding any other, and evict what exceeds the budget."""
        self._needed = needed
        if self._running is not None and self._running[0] not in needed:
            self._running[1].close()
            self._running = None
        self._evict()

    def advance(self, key: MediaKey, medium: Media, seconds: float) -> None:
        """Continue to encode a medium for at most this time, but at least for one part of its encoder.

        No part is started that would end too late if it took as long as the longest so far.

        Raises:
            Exception: whatever the encoder raises; the next call starts again.
        """
        if self._running is None or self._running[0] != key:
            self._running = key, self._encode(medium)
        encoding, begun, longest = self._running[1], self._clock(), 0.0
        end = begun + seconds
        try:
            while True:
                next(encoding)
                now = self._clock()
                begun, longest = now, max(longest, now - begun)
                if now + longest >= end:
                    return
        except StopIteration as finished:
            self._running = None
            self._add(key, _checked(finished.value[0]))
        except Exception:
            self._running = None
            raise

    def _add(self, key: MediaKey, tokens: Tensor) -> None:
        self._cached[key] = tokens
        self._size += tokens.nbytes
        self._evict()

    def _evict(self) -> None:
        """Least recently used first."""
        for key in list(self._cached) if self._size > self._budget else ():
            if self._size > self._budget and key not in self._needed:
                self._size -= self._cached.pop(key).nbytes


def _checked(tokens: Tensor) -> Tensor:
    if not is_finite([tokens]):
        raise ArithmeticError("the encoder computed infinity or NaN for an image or audio") from None
    return tokens


def run_encoder(encoders: Encoders, media: Media) -> Encoding:
    """Start the encoder of a medium's modality."""
    features, image = torch.from_numpy(media.features).unsqueeze(0), media.modality == "image"
    return encoders.encode_image(features) if image else encoders.encode_audio(features)


def refuse(media: Media) -> Encoding:
    """Used instead of an encoder if there is none.

    Raises:
        InvalidRequest: always.
    """
    raise InvalidRequest(f"the checkpoint has no tower for {media.modality}", "messages")


def put_in_place(tokens: Tensor, span: MediaSpan, x: Tensor, start: int) -> None:
    """Write the soft tokens of a medium to their positions.

    Args:
        tokens: of the medium, ``[soft tokens, hidden]``.
        span: their positions in the prompt.
        x: embeddings of a part of the prompt, ``[tokens, hidden]``; some are replaced.
        start: the position of the first of them.

    Raises:
        ValueError: the number of soft tokens differs from that of their positions.
    """
    if tokens.shape[0] != span.length:
        raise ValueError(f"{tokens.shape[0]} soft tokens for a span of {span.length}")
    first, last = max(span.start, start), min(span.start + span.length, start + len(x))
    x[first - start : last - start] = tokens[first - span.start : last - span.start]
