"""The output of one choice: its text, tool calls, log probabilities and finish reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gemma_model.detokenizer import Detokenizer, TextDelta, TokenBytes
from gemma_model.engine_types import MIN_LOGPROB, EngineOutput, PositionLogprobs
from gemma_model.structured_output.forced_completion import ForcedCompletion
from gemma_model.tool_calls import CALL_START, ToolCallParser, join_deltas
from gemma_wire import Alternative, Chunk, FinishReason, PromptLogprobs, TokenLogprob, ToolCallDelta


@dataclass(frozen=True)
class OutputOptions:
    """How the output of a request is reported.

    Args:
        table: bytes of each token.
        prompt: its token ids.
        n: number of choices.
        stop: strings that end a choice.
        stop_token_ids: tokens that end a choice.
        tools: whether tools may be called.
        custom_tools: names of those among them that are custom.
        call_first: an output is either tool calls alone or contains none.
        logprobs: report the log probability of each new token.
        prompt_logprobs: report those of the prompt.
        token_ids: report the ids of the prompt's and the new tokens.
        usage: report the token counts so far in each chunk.
        prediction: report what became of the request's prediction.
        special: write control tokens by their names.
        completion: makes the object that closes a choice that ``max_tokens`` cuts; one for each choice.
        unenforced: keywords of the request's schemas that are not enforced.
        is_valid: whether a finished choice fits its schemas; takes its text and its calls (name, arguments).
    """

    table: TokenBytes
    prompt: tuple[int, ...]
    n: int = 1
    stop: Sequence[str] = ()
    stop_token_ids: frozenset[int] = frozenset()
    tools: bool = False
    custom_tools: frozenset[str] = frozenset()
    call_first: bool = False
    logprobs: bool = False
    prompt_logprobs: bool = False
    token_ids: bool = False
    usage: bool = False
    prediction: bool = False
    special: bool = False
    completion: Callable[[], ForcedCompletion] | None = None
    unenforced: tuple[str, ...] = ()
    is_valid: Callable[[str, list[tuple[str, str]]], bool] | None = None


@dataclass
class _Unsent:
    """What a choice has produced since its last chunk."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tool_calls: list[ToolCallDelta] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.text or self.logprobs or self.tool_calls)


class CompletionOutput:
    """The output of one choice of a request.

    Args:
        index: of the choice.
        options: of the request.
    """

    def __init__(self, index: int, options: OutputOptions) -> None:
        self.index, self._options = index, options
        self._completion = options.completion() if options.completion is not None else None
        self._all_text: list[str] = []
        self._all_calls: list[ToolCallDelta] = []
        self._unsent = _Unsent()
        self._calls = ToolCallParser(options.custom_tools)
        self._detokenizer = Detokenizer(
            options.table,
            options.stop,
            options.stop_token_ids,
            CALL_START if options.tools else "",
            options.call_first,
            options.special,
        )
        self.finish: FinishReason | None = None

    @property
    def tokens(self) -> int:
        """Tokens up to and including the last one that counts."""
        return self._detokenizer.tokens

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended it, which the engine does not know."""
        return self._detokenizer.stopped

    @property
    def has_news(self) -> bool:
        """Whether there is something to send."""
        return bool(self._unsent)

    def add(self, output: EngineOutput) -> bool:
        """Process an engine output of this choice; whether the choice has ended."""
        before = self.tokens
        completion = self._completion
        token_ids, logprobs = completion.add(output) if completion else (output.token_ids, output.logprobs)
        self._append(self._detokenizer.feed(token_ids, logprobs))
        fresh = token_ids[: self.tokens - before]
        self._unsent.token_ids += fresh if self._options.token_ids else ()
        if output.last or self.stopped:
            self._append(self._detokenizer.finish())
            self._add_calls(self._calls.finish())
            self.finish = self._finish_reason(output)
        return self.finish is not None

    def is_valid(self) -> bool:
        """Whether the finished choice fits its schemas."""
        assert self._options.is_valid is not None
        calls = [(call.name or "", call.arguments) for call in join_deltas(self._all_calls)]
        return self._options.is_valid("".join(self._all_text), calls)

    def next_chunk(self) -> Chunk:
        """All that has not been sent."""
        unsent, self._unsent = self._unsent, _Unsent()
        return Chunk(
            text=unsent.text,
            index=self.index,
            token_ids=tuple(unsent.token_ids),
            logprobs=tuple(unsent.logprobs),
            tool_calls=tuple(join_deltas(unsent.tool_calls)),
            finish_reason=self.finish,
            stop_string=self._detokenizer.stop_string if self.finish else None,
        )

    def _append(self, delta: TextDelta) -> None:
        self._unsent.text += delta.text
        self._add_calls(self._calls.feed(delta.call) if delta.call else [])
        if self._options.is_valid is not None:
            self._all_text.append(delta.text)
        if self._options.logprobs:
            for token in delta.tokens:
                if token.logprobs is not None:
                    self._unsent.logprobs.append(
                        to_token_logprob(self._options.table, token.token_id, token.logprobs, token.data)
                    )

    def _add_calls(self, calls: list[ToolCallDelta]) -> None:
        self._unsent.tool_calls += calls
        if self._options.is_valid is not None:
            self._all_calls += calls

    def _finish_reason(self, output: EngineOutput) -> FinishReason:
        if self.stopped:
            return "stop"
        if output.finish == "length" and not (self._completion is not None and self._completion.complete):
            return "length"
        return "tool_calls" if self._calls.calls else "stop"


def to_token_logprob(
    table: TokenBytes, token_id: int, logprobs: PositionLogprobs, data: bytes | None = None
) -> TokenLogprob:
    """The wire form of a token's log probability.

    Args:
        table: bytes of each token.
        token_id: the token.
        logprobs: at its position.
        data: the bytes of the token that are part of the text, if not all of them are.
    """
    own = _alternative(table, token_id, logprobs.logprob)
    if data is not None and tuple(data) != own.utf8:
        own = own.model_copy(update={"utf8": tuple(data), "token": data.decode(errors="replace")})
    top = tuple(_alternative(table, *pair) for pair in logprobs.top)
    return TokenLogprob(**dict(own), top=top)


def to_prompt_logprobs(
    table: TokenBytes, token_ids: Sequence[int], positions: Sequence[PositionLogprobs]
) -> PromptLogprobs:
    """The wire form of the log probabilities of a prompt's tokens.

    Args:
        table: bytes of each token.
        token_ids: of the prompt, without the first.
        positions: the log probabilities at each of them.
    """
    tops = [tuple(zip(*position.top, strict=True)) or ((), ()) for position in positions]
    known = set(token_ids).union(*(ids for ids, _ in tops))
    texts = {token_id: table.name(token_id) for token_id in known}
    utf8 = {token_id: table[token_id] for token_id in known}
    return PromptLogprobs(
        token_ids=tuple(token_ids),
        logprobs=tuple(position.logprob for position in positions),
        ranks=tuple(position.rank or 0 for position in positions),
        top_ids=tuple(ids for ids, _ in tops),
        top_logprobs=tuple(logprobs for _, logprobs in tops),
        texts=texts,
        utf8={i: tuple(data) for i, data in utf8.items() if data != texts[i].encode()},
    )


def _alternative(table: TokenBytes, token_id: int, logprob: float) -> Alternative:
    return Alternative(
        token_id=token_id,
        token=table.name(token_id),
        utf8=tuple(table[token_id]),
        logprob=max(logprob, MIN_LOGPROB),
    )
