"""A request as it came → a generation that an engine can run."""

from collections.abc import Callable, Sequence

from gemma_model.checkpoint import Checkpoint
from gemma_model.lane import ClientGone
from gemma_model.media.images import ImageDecoder
from gemma_model.output import TextStream, TokenBytes
from gemma_model.prompt import PromptEncoder, format_messages_to_prompt, format_raw_prompt
from gemma_model.protocol import Generation, Prompt, Sampling
from gemma_model.settings import Settings
from gemma_wire import ContextLengthExceeded, InvalidRequest, Request

GREEDY_BELOW = 1e-5
"""Temperatures this small are 0: logits divided by them would overflow fp32."""


class Intake:
    """Checks requests and turns them into generations; safe to call from several threads."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        self._checkpoint = checkpoint
        self._max_images = settings.max_images
        self._encoder = PromptEncoder(checkpoint.folder, checkpoint.image_tokens, checkpoint.context_length)
        self._images = ImageDecoder(checkpoint.folder, settings.max_image_pixels)
        self._table = TokenBytes(self._encoder.tokenizer)

    def accept(self, request: Request, gone: Callable[[], bool] = lambda: False) -> Generation:
        """Decode the pictures, lay out the prompt, settle what the request left open.

        Args:
            request: what is asked.
            gone: whether the client has left; asked before each picture.

        Raises:
            ClientGone: it has.
            InvalidRequest: naming the field.
            ContextLengthExceeded: when the prompt does not fit.
        """
        prompt = self._prompt(request, gone)
        room = self._checkpoint.context_length - len(prompt.token_ids)
        if room < 1:
            raise ContextLengthExceeded(
                f"the prompt has {len(prompt.token_ids)} tokens; with at least one to answer they do not fit "
                f"the context of {self._checkpoint.context_length} tokens",
                "prompt" if request.messages is None else "messages",
            )
        options = request.options
        return Generation(
            prompt=prompt,
            sampling=_sampling(request, self._checkpoint.defaults),
            max_tokens=min(request.max_tokens or room, room),
            min_tokens=options.min_tokens,
            stop_token_ids=frozenset() if options.ignore_eos else self._checkpoint.eos_token_ids,
        )

    def text_stream(self, stop: Sequence[str]) -> TextStream:
        """Where the tokens of one answer become text."""
        return TextStream(self._table, stop)

    def _prompt(self, request: Request, gone: Callable[[], bool]) -> Prompt:
        if request.audio:
            raise InvalidRequest("sound is not supported by this server yet", "audio")
        if len(request.images) > self._max_images:
            raise InvalidRequest(f"{len(request.images)} given; {self._max_images} are the limit", "images")
        media = []
        for i, data in enumerate(request.images):
            if gone():
                raise ClientGone
            media.append(self._images.decode(data, f"images[{i}]"))
        if request.messages is not None:
            return self._encoder.encode(format_messages_to_prompt(request.messages), media)
        return self._encoder.encode(format_raw_prompt(request.prompt or ""), media)


def _sampling(request: Request, defaults: Sampling) -> Sampling:
    """The request's wishes; what it leaves open is the checkpoint's recommendation."""
    temperature = defaults.temperature if request.temperature is None else request.temperature
    top_k = request.options.top_k
    return Sampling(
        temperature=0.0 if temperature < GREEDY_BELOW else temperature,
        top_k=defaults.top_k if top_k is None else top_k,
        top_p=defaults.top_p if request.top_p is None else request.top_p,
        seed=request.options.seed,
    )
