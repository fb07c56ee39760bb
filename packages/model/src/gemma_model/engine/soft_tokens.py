"""Images and audio → soft tokens: part by part, once for each content, kept while there is room."""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator

import torch
from torch import Tensor

from gemma_model.cpu.kernels import is_finite
from gemma_model.engine.sequence import Key
from gemma_model.models.model import Encoders
from gemma_model.protocol import Media, MediaSpan
from gemma_wire import InvalidRequest

Encoding = Generator[None, None, Tensor]
"""A run of an encoder that pauses between its parts; it returns ``[1, soft tokens, hidden]``."""
Encode = Callable[[Media], Encoding]


class SoftTokens:
    """What the encoders made of media, the most recent ones, by key.

    One medium is encoded at a time. So its result does not depend on others, and memory is bounded.

    Args:
        encode: begins to run an encoder.
        budget: bytes that are kept beyond what is needed.
        clock: seconds.
    """

    def __init__(self, encode: Encode, budget: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._encode, self._budget, self._clock = encode, budget, clock
        self._kept: OrderedDict[Key, Tensor] = OrderedDict()
        self._size = 0
        self._needed: Collection[Key] = ()
        self._running: tuple[Key, Encoding] | None = None

    def __contains__(self, key: Key) -> bool:
        """Whether it is encoded."""
        return key in self._kept

    def __getitem__(self, key: Key) -> Tensor:
        """Soft tokens ``[soft tokens, hidden]`` of what is encoded."""
        self._kept.move_to_end(key)
        return self._kept[key]

    def retain(self, needed: Collection[Key]) -> None:
        """Keep these whatever their size; stop encoding others, and drop what the budget cannot hold."""
        self._needed = needed
        if self._running is not None and self._running[0] not in needed:
            self._running[1].close()
            self._running = None
        self._evict()

    def advance(self, key: Key, medium: Media, seconds: float) -> None:
        """Go on encoding a medium for at most that long, but at least for one part of its encoder.

        No part is begun that would end too late if it took as long as the longest so far.

        Raises:
            Exception: whatever the encoder raises; the next call begins anew.
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
            self._keep(key, _checked(finished.value[0]))
        except Exception:
            self._running = None
            raise

    def _keep(self, key: Key, tokens: Tensor) -> None:
        self._kept[key] = tokens
        self._size += tokens.nbytes
        self._evict()

    def _evict(self) -> None:
        """The one that was used least recently goes first."""
        for key in list(self._kept) if self._size > self._budget else ():
            if self._size > self._budget and key not in self._needed:
                self._size -= self._kept.pop(key).nbytes


def _checked(tokens: Tensor) -> Tensor:
    if not is_finite([tokens]):
        raise ArithmeticError("the encoder computed infinity or NaN for an image or a sound") from None
    return tokens


def run_encoder(encoders: Encoders, media: Media) -> Encoding:
    """Begin to run the encoder of its modality."""
    features, image = torch.from_numpy(media.features).unsqueeze(0), media.modality == "image"
    return encoders.encode_image(features) if image else encoders.encode_audio(features)


def refuse(media: Media) -> Encoding:
    """Instead of an encoder, where there is none.

    Raises:
        InvalidRequest: always.
    """
    raise InvalidRequest(f"the checkpoint has no tower for {media.modality}", "messages")


def put_in_place(tokens: Tensor, span: MediaSpan, x: Tensor, start: int) -> None:
    """Put the soft tokens of a medium in their places.

    Args:
        tokens: of the medium, ``[soft tokens, hidden]``.
        span: their places in the prompt.
        x: embeddings of a part of the prompt, ``[tokens, hidden]``; some are replaced.
        start: the position of the first of them.

    Raises:
        ValueError: there are not as many soft tokens as places.
    """
    if tokens.shape[0] != span.length:
        raise ValueError(f"{tokens.shape[0]} soft tokens for a span of {span.length}")
    first, last = max(span.start, start), min(span.start + span.length, start + len(x))
    x[first - start : last - start] = tokens[first - span.start : last - span.start]
