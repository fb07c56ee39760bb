"""A client's request → a request for the engine, and how its output is reported."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from gemma_model.chat_template import (
    TemplateText,
    format_messages_to_prompt,
    format_raw_prompt,
    repeat_audio,
)
from gemma_model.checkpoint import Checkpoint
from gemma_model.completion_output import OutputOptions
from gemma_model.detokenizer import TokenBytes
from gemma_model.engine_types import EngineRequest, EngineSamplingParams, Media, Modality, TokenizedPrompt
from gemma_model.media.audio import AudioDecoder
from gemma_model.media.images import ImageDecoder, PixelBudget
from gemma_model.models.gemma3n.nested_models import served_nested_models
from gemma_model.prompt_encoder import PromptEncoder, context_length_message
from gemma_model.settings import Settings
from gemma_model.structured_output.compiler import CompiledGrammar, GrammarCompiler
from gemma_model.worker_pool import RequestAborted
from gemma_wire import ContextLengthExceeded, InvalidRequest, Options, Request, TokenizerInfo, Tokens
from gemma_wire.options import MAX_TOP_LOGPROBS

GREEDY_BELOW = 1e-5
"""Lower temperatures are treated as 0: logits divided by them would overflow fp32."""

MAX_REPORTED_LOGPROBS = 65_536
"""Log probabilities that one response may report of its prompt: 32,768 tokens with one alternative each."""

IsDisconnected = Callable[[], bool]
"""Whether the client has disconnected."""


@dataclass(frozen=True)
class ProcessedRequest:
    """A request for the engine, and how its output is reported."""

    engine_request: EngineRequest
    output_options: OutputOptions


class RequestProcessor:
    """Validates requests and prepares them for the engine. Safe to call from several threads."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        self._checkpoint, self._settings = checkpoint, settings
        self.variants = tuple(served_nested_models(checkpoint.config, settings))
        """Names of the nested models that a request may select."""
        soft_tokens = checkpoint.soft_tokens
        self.tokenizer_info = TokenizerInfo(config=checkpoint.tokenizer_config)
        """The response to ``op=tokenizer_info``."""
        self._encoder = PromptEncoder(checkpoint.folder, soft_tokens, checkpoint.context_length)
        self._images = (
            ImageDecoder(checkpoint.folder, settings.max_image_pixels) if "image" in soft_tokens else None
        )
        self._audio = (
            AudioDecoder(checkpoint.folder, settings.max_audio_seconds) if "audio" in soft_tokens else None
        )
        self._table = TokenBytes(self._encoder.tokenizer)
        self._grammars = GrammarCompiler(
            self._encoder.tokenizer,
            self._table,
            checkpoint.vocabulary,
            self._encoder.soft_ids.values(),
            checkpoint.eos_token_ids,
            settings.max_grammar_bytes,
        )

    def process(self, request: Request, is_disconnected: IsDisconnected = lambda: False) -> ProcessedRequest:
        """Decode the media, build and tokenise the prompt, compile grammars, fill in defaults.

        Args:
            request: of a client.
            is_disconnected: checked before each image and audio clip is decoded.

        Raises:
            RequestAborted: the client has disconnected.
            InvalidRequest: names the field.
            ContextLengthExceeded: the prompt does not fit.
        """
        options = request.options
        self._check(options)
        prompt = self._prompt(request, is_disconnected)
        max_tokens = self._max_tokens(request, prompt)
        _check_logprobs(options, len(prompt.token_ids), max_tokens)
        stop_token_ids = self._stop_token_ids(options)
        compiled = self._grammars.compile(options, max_tokens, stop_token_ids)
        engine_request = EngineRequest(
            prompt=prompt,
            sampling=_sampling_params(request, self._checkpoint.defaults),
            max_tokens=max_tokens,
            min_tokens=options.min_tokens,
            stop_token_ids=stop_token_ids,
            n=options.n,
            logprobs=options.logprobs,
            prompt_logprobs=options.prompt_logprobs,
            logprob_token_ids=options.logprob_token_ids,
            constraint=compiled.constraint if compiled else None,
            prediction=self._encoder.encode_prediction(options.prediction or ""),
            variant=options.model if options.model in self.variants else None,
            cache_salt=options.cache_salt or None,
        )
        return ProcessedRequest(engine_request, self._output_options(options, engine_request, compiled))

    def _output_options(
        self, options: Options, engine_request: EngineRequest, compiled: CompiledGrammar | None
    ) -> OutputOptions:
        return OutputOptions(
            table=self._table,
            prompt=engine_request.prompt.token_ids,
            n=options.n,
            stop=options.stop,
            stop_token_ids=engine_request.stop_token_ids,
            tools=bool(options.tools),
            custom_tools=frozenset(tool.name for tool in options.tools if tool.custom is not None),
            call_first=options.grammar is not None,
            logprobs=options.logprobs is not None,
            prompt_logprobs=options.prompt_logprobs is not None,
            token_ids=options.return_token_ids,
            usage=options.continuous_usage_stats,
            prediction=options.prediction is not None,
            special=not options.skip_special_tokens,
            completion=compiled.completion if compiled else None,
            unenforced=compiled.unenforced if compiled else (),
            is_valid=compiled.is_valid if compiled else None,
        )

    def tokens(self, request: Request, is_disconnected: IsDisconnected = lambda: False) -> Tokens:
        """The response to ``op=tokenize`` and ``op=detokenize``.

        Raises:
            RequestAborted: the client has disconnected.
            InvalidRequest: names the field.
        """
        self._check(request.options)
        given = request.options.prompt_token_ids
        token_ids = (
            given if request.options.op == "detokenize" else self._prompt(request, is_disconnected).token_ids
        )
        assert token_ids is not None, "validated by gemma_wire"
        return Tokens(
            token_ids=token_ids,
            text=self._table.decode(token_ids),
            pieces=tuple(map(self._table.name, token_ids)),
            context_length=self._checkpoint.context_length,
            begins=self._table.name(token_ids[0]) == "<bos>",
        )

    def close(self) -> None:
        """End the child processes."""
        self._grammars.close()

    def _check(self, options: Options) -> None:
        """Check what depends on the model: its name, its vocabulary, and its limits."""
        served = (self._settings.public_name, *self.variants)
        if options.model is not None and options.model not in served:
            known = f"this server has {', '.join(map(repr, served))}"
            raise InvalidRequest(f"there is no model {options.model!r}; {known}", "options.model")
        if options.n > self._settings.max_num_seqs:
            limit = f"the limit is {self._settings.max_num_seqs} choices"
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
                raise InvalidRequest(f"has the id {most:,}; {known}", f"options.{name}")
        if options.logprob_token_ids and options.logprobs is None:
            raise InvalidRequest("needs logprobs", "options.logprob_token_ids")
        if options.tool_choice == "required" and not options.tools:
            raise InvalidRequest("needs tools", "options.tool_choice")
        if options.ignore_eos and (options.grammar or options.tools):
            raise InvalidRequest(
                "is not allowed with a grammar or tools, whose output must end", "options.ignore_eos"
            )

    def _max_tokens(self, request: Request, prompt: TokenizedPrompt) -> int:
        room = self._checkpoint.context_length - len(prompt.token_ids)
        if room < 1:
            raise ContextLengthExceeded(
                context_length_message(self._checkpoint.context_length, str(len(prompt.token_ids))),
                _prompt_field(request),
            )
        return min(request.max_tokens or room, room)

    def _stop_token_ids(self, options: Options) -> frozenset[int]:
        own = frozenset[int]() if options.ignore_eos else self._checkpoint.eos_token_ids
        return own | frozenset(options.stop_token_ids)

    @property
    def audio_seconds(self) -> float | None:
        """The longest audio that is heard as one clip, if the model supports audio."""
        return self._audio.clip_seconds if self._audio else None

    def _prompt(self, request: Request, is_disconnected: IsDisconnected) -> TokenizedPrompt:
        images, audio = self._media(request, is_disconnected)
        media = [*images, *chain(*audio)]
        if request.messages is not None:
            parts = format_messages_to_prompt(
                request.messages,
                request.options.tools,
                add_generation_prompt=request.options.add_generation_prompt,
                continue_final_message=request.options.continue_final_message,
            )
            return self._encoder.encode(repeat_audio(parts, audio), media)
        if request.options.prompt_token_ids is not None:
            return self._encoder.from_token_ids(request.options.prompt_token_ids, media)
        self._encoder.check_length(
            [TemplateText(request.prompt or "")]
        )  # before it is searched for soft tokens
        return self._encoder.encode(repeat_audio(format_raw_prompt(request.prompt or ""), audio), media)

    def _media(
        self, request: Request, is_disconnected: IsDisconnected
    ) -> tuple[list[Media], list[list[Media]]]:
        """The images, and the clips of each audio file."""
        self._check_supported(request.images, "image", "images")
        self._check_supported(request.audio, "audio", "audio")
        _check_count(request.images, self._settings.max_images, "images")
        _check_count(request.audio, self._settings.max_audio, "audio")
        budget = PixelBudget(self._settings.max_request_pixels)
        images: list[Media] = []
        for i, data in enumerate(_while_connected(request.images, is_disconnected)):
            assert self._images is not None, "checked above"
            images.append(self._images.decode(data, f"images[{i}]", budget))
        audio: list[list[Media]] = []
        room = self._settings.max_audio - len(request.audio)  # for further clips
        for i, data in enumerate(_while_connected(request.audio, is_disconnected)):
            assert self._audio is not None, "checked above"
            audio.append(self._audio.decode(data, f"audio[{i}]", 1 + room))
            room -= len(audio[-1]) - 1
        return images, audio

    def _check_supported(self, files: tuple[bytes, ...], modality: Modality, field: str) -> None:
        if files and modality not in self._checkpoint.soft_tokens:
            left_out = self._checkpoint.text_only
            why = "with GEMMA_TOWERS=none, this server" if left_out else "this model"
            raise InvalidRequest(f"{why} does not support {field}", field)


def _check_logprobs(options: Options, prompt_tokens: int, max_tokens: int) -> None:
    """Limit the size of a response: a prompt's are reported at once, and many per new token add up."""
    if options.prompt_logprobs is not None:
        _check_logprob_count(prompt_tokens, 1 + options.prompt_logprobs, options.n, "prompt_logprobs")
    if len(options.logprob_token_ids) > MAX_TOP_LOGPROBS:
        _check_logprob_count(max_tokens, len(options.logprob_token_ids), options.n, "logprob_token_ids")


def _check_logprob_count(tokens: int, each: int, n: int, field: str) -> None:
    if tokens * each * n > MAX_REPORTED_LOGPROBS:
        asked = f"requests {tokens * each * n:,} log probabilities ({each} for each of {tokens:,} tokens)"
        raise InvalidRequest(f"{asked}; the limit is {MAX_REPORTED_LOGPROBS:,}", f"options.{field}")


def _check_count(files: tuple[bytes, ...], limit: int, field: str) -> None:
    if len(files) > limit:
        raise InvalidRequest(f"has {len(files)} files; the limit is {limit}", field)


def _while_connected(files: Iterable[bytes], is_disconnected: IsDisconnected) -> Iterator[bytes]:
    for data in files:
        if is_disconnected():
            raise RequestAborted
        yield data


def _prompt_field(request: Request) -> str:
    """The field that holds the prompt."""
    if request.messages is not None:
        return "messages"
    return "prompt" if request.prompt is not None else "options.prompt_token_ids"


def _sampling_params(request: Request, defaults: EngineSamplingParams) -> EngineSamplingParams:
    """The request's sampling parameters; the checkpoint's recommendation for those that it leaves open."""
    params = defaults.override(request)
    return params.model_copy(update={"temperature": 0.0}) if params.temperature < GREEDY_BELOW else params
