"""A request as it came → a generation that an engine can run, and the wording of its answer."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gemma_model.checkpoint import Checkpoint
from gemma_model.grammar import Grammars
from gemma_model.lane import ClientGone
from gemma_model.media.audio import AudioDecoder
from gemma_model.media.images import ImageDecoder, PixelBudget
from gemma_model.models.gemma3n.nested_models import served_nested_models
from gemma_model.output import TokenBytes
from gemma_model.prompt import PromptEncoder, Template, format_messages_to_prompt, format_raw_prompt, too_long
from gemma_model.protocol import Generation, Media, Modality, Prompt, Sampling
from gemma_model.settings import Settings
from gemma_model.wording import Wording
from gemma_wire import ContextLengthExceeded, InvalidRequest, Options, Request, TokenizerInfo, Tokens
from gemma_wire.options import MAX_TOP_LOGPROBS

GREEDY_BELOW = 1e-5
"""Temperatures this small are 0: logits divided by them would overflow fp32."""

MAX_SCORES = 65_536
"""Log probabilities that one answer may tell of its prompt: of 32,768 tokens with one alternative each."""

Gone = Callable[[], bool]
"""Whether the client has left."""


@dataclass(frozen=True)
class Job:
    """What an engine is to do, and how its answer is put into words."""

    generation: Generation
    wording: Wording


class Intake:
    """Checks requests and turns them into jobs; safe to call from several threads."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        self._checkpoint, self._settings = checkpoint, settings
        self.variants = tuple(served_nested_models(checkpoint.config, settings))
        """Names of nested models that a request may ask for instead."""
        soft_tokens = checkpoint.soft_tokens
        self.tokenizer_info = TokenizerInfo(config=checkpoint.tokenizer_config)
        """The answer to ``op=tokenizer_info``."""
        self._encoder = PromptEncoder(checkpoint.folder, soft_tokens, checkpoint.context_length)
        self._images = (
            ImageDecoder(checkpoint.folder, settings.max_image_pixels) if "image" in soft_tokens else None
        )
        self._audio = (
            AudioDecoder(checkpoint.folder, settings.max_audio_seconds) if "audio" in soft_tokens else None
        )
        self._table = TokenBytes(self._encoder.tokenizer)
        self._grammars = Grammars(
            self._encoder.tokenizer,
            self._table,
            checkpoint.vocabulary,
            self._encoder.soft_ids.values(),
            checkpoint.eos_token_ids,
            settings.max_grammar_bytes,
        )

    def accept(self, request: Request, gone: Gone = lambda: False) -> Job:
        """Decode the media, lay out the prompt, settle what the request left open.

        Args:
            request: what is asked.
            gone: whether the client has left; asked before each picture and sound.

        Raises:
            ClientGone: it has.
            InvalidRequest: naming the field.
            ContextLengthExceeded: when the prompt does not fit.
        """
        options = request.options
        self._check(options)
        prompt = self._prompt(request, gone)
        max_tokens = self._max_tokens(request, prompt)
        _check_scores(options, len(prompt.token_ids), max_tokens)
        stop_token_ids = self._stop_token_ids(options)
        constrained = self._grammars.constrain(options, max_tokens, stop_token_ids)
        generation = Generation(
            prompt=prompt,
            sampling=_sampling(request, self._checkpoint.defaults),
            max_tokens=max_tokens,
            min_tokens=options.min_tokens,
            stop_token_ids=stop_token_ids,
            n=options.n,
            logprobs=options.logprobs,
            prompt_logprobs=options.prompt_logprobs,
            logprob_token_ids=options.logprob_token_ids,
            constraint=constrained.constraint if constrained else None,
            variant=options.model if options.model in self.variants else None,
            cache_salt=options.cache_salt or None,
        )
        wording = Wording(
            table=self._table,
            prompt=prompt.token_ids,
            n=options.n,
            stop=options.stop,
            stop_token_ids=generation.stop_token_ids,
            tools=bool(options.tools),
            call_first=options.grammar is not None,
            logprobs=options.logprobs is not None,
            prompt_logprobs=options.prompt_logprobs is not None,
            token_ids=options.return_token_ids,
            usage=options.continuous_usage_stats,
            special=not options.skip_special_tokens,
            tail=constrained.tail if constrained else None,
            unenforced=constrained.unenforced if constrained else (),
            fits=constrained.fits if constrained else None,
        )
        return Job(generation, wording)

    def tokens(self, request: Request, gone: Gone = lambda: False) -> Tokens:
        """The answer to ``op=tokenize`` and ``op=detokenize``.

        Raises:
            ClientGone: the client has left.
            InvalidRequest: naming the field.
        """
        self._check(request.options)
        given = request.options.prompt_token_ids
        token_ids = given if request.options.op == "detokenize" else self._prompt(request, gone).token_ids
        assert token_ids is not None, "the wire has seen to it"
        return Tokens(
            token_ids=token_ids,
            text=self._table.spell_out(token_ids),
            pieces=tuple(map(self._table.name, token_ids)),
            context_length=self._checkpoint.context_length,
            begins=self._table.name(token_ids[0]) == "<bos>",
        )

    def close(self) -> None:
        """Leave no process behind."""
        self._grammars.close()

    def _check(self, options: Options) -> None:
        """What the wire cannot know: the model's name, its vocabulary, and how much it does at once."""
        served = (self._settings.public_name, *self.variants)
        if options.model is not None and options.model not in served:
            known = f"{', '.join(map(repr, served))} {'are' if self.variants else 'is'}"
            raise InvalidRequest(f"{options.model!r} is not served here; {known}", "options.model")
        if options.n > self._settings.max_num_seqs:
            limit = f"{self._settings.max_num_seqs} answers at once are the limit"
            raise InvalidRequest(f"is {options.n}; {limit}", "options.n")
        ids = {
            "prompt_token_ids": options.prompt_token_ids or (),
            "stop_token_ids": options.stop_token_ids,
            "logit_bias": options.logit_bias,
            "logprob_token_ids": options.logprob_token_ids,
        }
        for name, given in ids.items():
            if (most := max(given, default=0)) >= self._checkpoint.vocabulary:
                known = f"the model has {self._checkpoint.vocabulary:,} tokens"
                raise InvalidRequest(f"holds the id {most:,}; {known}", f"options.{name}")
        if options.logprob_token_ids and options.logprobs is None:
            raise InvalidRequest("needs logprobs", "options.logprob_token_ids")
        if options.tool_choice == "required" and not options.tools:
            raise InvalidRequest("needs tools", "options.tool_choice")
        if options.ignore_eos and (options.grammar or options.tools):
            raise InvalidRequest("cannot be: what a grammar or tools allow has an end", "options.ignore_eos")

    def _max_tokens(self, request: Request, prompt: Prompt) -> int:
        room = self._checkpoint.context_length - len(prompt.token_ids)
        if room < 1:
            raise ContextLengthExceeded(
                too_long(self._checkpoint.context_length, str(len(prompt.token_ids))),
                _question(request),
            )
        return min(request.max_tokens or room, room)

    def _stop_token_ids(self, options: Options) -> frozenset[int]:
        own = frozenset[int]() if options.ignore_eos else self._checkpoint.eos_token_ids
        return own | frozenset(options.stop_token_ids)

    def _prompt(self, request: Request, gone: Gone) -> Prompt:
        media = list(self._media(request, gone))
        if request.messages is not None:
            pieces = format_messages_to_prompt(
                request.messages,
                request.options.tools,
                add_generation_prompt=request.options.add_generation_prompt,
                continue_final_message=request.options.continue_final_message,
            )
            return self._encoder.encode(pieces, media)
        if request.options.prompt_token_ids is not None:
            return self._encoder.adopt(request.options.prompt_token_ids, media)
        self._encoder.check_length([Template(request.prompt or "")])  # before it is searched for places
        return self._encoder.encode(format_raw_prompt(request.prompt or ""), media)

    def _media(self, request: Request, gone: Gone) -> Iterator[Media]:
        self._check_taken(request.images, "image", "images")
        self._check_taken(request.audio, "audio", "audio")
        _check_count(request.images, self._settings.max_images, "images")
        _check_count(request.audio, self._settings.max_audio, "audio")
        budget = PixelBudget(self._settings.max_request_pixels)
        for i, data in enumerate(_while_there(request.images, gone)):
            assert self._images is not None, "it was seen to"
            yield self._images.decode(data, f"images[{i}]", budget)
        for i, data in enumerate(_while_there(request.audio, gone)):
            assert self._audio is not None, "it was seen to"
            yield self._audio.decode(data, f"audio[{i}]")

    def _check_taken(self, files: tuple[bytes, ...], modality: Modality, field: str) -> None:
        if files and modality not in self._checkpoint.soft_tokens:
            left_out = self._checkpoint.text_only
            why = "this server was started with GEMMA_TOWERS=none and" if left_out else "this model"
            raise InvalidRequest(f"{why} takes none", field)


def _check_scores(options: Options, prompt_tokens: int, max_tokens: int) -> None:
    """All of a prompt's are told at once, and more than twenty at each new token add up."""
    if options.prompt_logprobs is not None:
        _check_scored(prompt_tokens, 1 + options.prompt_logprobs, options.n, "prompt_logprobs")
    if len(options.logprob_token_ids) > MAX_TOP_LOGPROBS:
        _check_scored(max_tokens, len(options.logprob_token_ids), options.n, "logprob_token_ids")


def _check_scored(tokens: int, each: int, n: int, field: str) -> None:
    if tokens * each * n > MAX_SCORES:
        asked = f"asks for {tokens * each * n:,} log probabilities ({each} at each of {tokens:,} tokens)"
        raise InvalidRequest(f"{asked}; {MAX_SCORES:,} are the limit", f"options.{field}")


def _check_count(files: tuple[bytes, ...], limit: int, field: str) -> None:
    if len(files) > limit:
        raise InvalidRequest(f"{len(files)} given; {limit} are the limit", field)


def _while_there(files: Iterable[bytes], gone: Gone) -> Iterator[bytes]:
    for data in files:
        if gone():
            raise ClientGone
        yield data


def _question(request: Request) -> str:
    """What the prompt was made of, by its field."""
    if request.messages is not None:
        return "messages"
    return "prompt" if request.prompt is not None else "options.prompt_token_ids"


def _sampling(request: Request, defaults: Sampling) -> Sampling:
    """The request's wishes; what it leaves open is the checkpoint's recommendation."""
    options = request.options
    temperature = defaults.temperature if request.temperature is None else request.temperature
    return Sampling(
        temperature=0.0 if temperature < GREEDY_BELOW else temperature,
        top_k=defaults.top_k if options.top_k is None else options.top_k,
        top_p=defaults.top_p if request.top_p is None else request.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        frequency_penalty=options.frequency_penalty,
        presence_penalty=options.presence_penalty,
        logit_bias=options.logit_bias,
        seed=options.seed,
    )
