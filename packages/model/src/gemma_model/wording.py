"""How one choice of an answer is put into words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gemma_model.closing import Tail
from gemma_model.output import Said, TextStream, TokenBytes
from gemma_model.protocol import LEAST_LOGPROB, Scores, Step
from gemma_model.tools import CALL_START, CallParser, join_deltas
from gemma_wire import Alternative, Chunk, FinishReason, PromptLogprobs, TokenLogprob, ToolCallDelta


@dataclass(frozen=True)
class Wording:
    """How the answer to one request is put into words.

    Args:
        table: of the tokenizer.
        prompt: its token ids.
        n: how many choices there are.
        stop: strings that end a choice.
        stop_token_ids: tokens that end a choice.
        tools: whether tools may be called.
        call_first: a call can only be all of the answer, or nothing of it.
        logprobs: whether each token's is told.
        prompt_logprobs: whether the prompt's are told.
        token_ids: whether the ids of the prompt's and the new tokens are told.
        usage: whether each chunk tells the token counts so far.
        special: whether control tokens are written by their names.
        tail: makes what closes a choice that ``max_tokens`` cuts.
        unenforced: keywords of the request's schemas that are not enforced.
        fits: whether a finished choice fits them, by its text and its calls (name and arguments).
    """

    table: TokenBytes
    prompt: tuple[int, ...]
    n: int = 1
    stop: Sequence[str] = ()
    stop_token_ids: frozenset[int] = frozenset()
    tools: bool = False
    call_first: bool = False
    logprobs: bool = False
    prompt_logprobs: bool = False
    token_ids: bool = False
    usage: bool = False
    special: bool = False
    tail: Callable[[], Tail] | None = None
    unenforced: tuple[str, ...] = ()
    fits: Callable[[str, list[tuple[str, str]]], bool] | None = None


@dataclass
class _Unsent:
    """What a choice has said since its last chunk."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tool_calls: list[ToolCallDelta] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.text or self.logprobs or self.tool_calls)


class Choice:
    """One of the answers to a prompt.

    Args:
        index: which one.
        wording: of the request.
    """

    def __init__(self, index: int, wording: Wording) -> None:
        self._index, self._wording = index, wording
        self._tail = wording.tail() if wording.tail is not None else None
        self._text_said: list[str] = []
        self._calls_said: list[ToolCallDelta] = []
        self._unsent = _Unsent()
        self._calls = CallParser()
        self._text = TextStream(
            wording.table,
            wording.stop,
            wording.stop_token_ids,
            CALL_START if wording.tools else "",
            wording.call_first,
            wording.special,
        )
        self.finish: FinishReason | None = None

    @property
    def tokens(self) -> int:
        """How many it has cost, up to and with the last that counts."""
        return self._text.tokens

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended it, of which the engine does not know."""
        return self._text.stopped

    @property
    def silent(self) -> bool:
        """Whether there is nothing new to send."""
        return not self._unsent

    def take(self, step: Step) -> bool:
        """Take in what the engine says of this choice; whether that is its end."""
        before = self.tokens
        token_ids, scores = (step.token_ids, step.scores) if self._tail is None else self._tail.take(step)
        self._say(self._text.feed(token_ids, scores))
        fresh = token_ids[: self.tokens - before]
        self._unsent.token_ids += fresh if self._wording.token_ids else ()
        if step.last or self.stopped:
            self._say(self._text.finish())
            self.finish = self._reason(step)
        return self.finish is not None

    def fits(self) -> bool:
        """Whether it fits its schemas; asked when it has finished."""
        assert self._wording.fits is not None
        calls = [(call.name or "", call.arguments) for call in join_deltas(self._calls_said)]
        return self._wording.fits("".join(self._text_said), calls)

    def chunk(self) -> Chunk:
        """All that has not been sent."""
        unsent, self._unsent = self._unsent, _Unsent()
        return Chunk(
            text=unsent.text,
            index=self._index,
            token_ids=tuple(unsent.token_ids),
            logprobs=tuple(unsent.logprobs),
            tool_calls=tuple(join_deltas(unsent.tool_calls)),
            finish_reason=self.finish,
        )

    def _say(self, said: Said) -> None:
        self._unsent.text += said.text
        calls = self._calls.feed(said.call) if said.call else []
        self._unsent.tool_calls += calls
        if self._wording.fits is not None:
            self._text_said.append(said.text)
            self._calls_said += calls
        if self._wording.logprobs:
            for token in said.tokens:
                if token.scores is not None:
                    told = token_logprob(self._wording.table, token.token_id, token.scores, token.data)
                    self._unsent.logprobs.append(told)

    def _reason(self, step: Step) -> FinishReason:
        if self.stopped:
            return "stop"
        if step.finish == "length" and not (self._tail is not None and self._tail.complete):
            return "length"
        return "tool_calls" if self._calls.calls else "stop"


def token_logprob(
    table: TokenBytes, token_id: int, scores: Scores, data: bytes | None = None
) -> TokenLogprob:
    """The log probability of a token.

    Args:
        table: of the tokenizer.
        token_id: the token.
        scores: the engine's.
        data: what the text holds of the token, where that is not all of it.
    """
    told = _alternative(table, token_id, scores.logprob)
    if data is not None and tuple(data) != told.utf8:
        told = told.model_copy(update={"utf8": tuple(data), "token": data.decode(errors="replace")})
    top = tuple(_alternative(table, *pair) for pair in scores.top)
    return TokenLogprob(**dict(told), top=top)


def prompt_logprobs(table: TokenBytes, token_ids: Sequence[int], scores: Sequence[Scores]) -> PromptLogprobs:
    """Log probabilities of a prompt's tokens.

    Args:
        table: of the tokenizer.
        token_ids: the prompt's, without the first.
        scores: the engine's, of each.
    """
    tops = [tuple(zip(*score.top, strict=True)) or ((), ()) for score in scores]
    known = set(token_ids).union(*(ids for ids, _ in tops))
    texts = {token_id: table.name(token_id) for token_id in known}
    spelled = {token_id: table[token_id] for token_id in known}
    return PromptLogprobs(
        token_ids=tuple(token_ids),
        logprobs=tuple(score.logprob for score in scores),
        ranks=tuple(score.rank or 0 for score in scores),
        top_ids=tuple(ids for ids, _ in tops),
        top_logprobs=tuple(logprobs for _, logprobs in tops),
        texts=texts,
        utf8={i: tuple(data) for i, data in spelled.items() if data != texts[i].encode()},
    )


def _alternative(table: TokenBytes, token_id: int, logprob: float) -> Alternative:
    return Alternative(
        token_id=token_id,
        token=table.name(token_id),
        utf8=tuple(table[token_id]),
        logprob=max(logprob, LEAST_LOGPROB),
    )
