"""Steps of the engine → chunks of one answer, which may have several choices."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from gemma_model.output import Said, TextStream, TokenBytes
from gemma_model.protocol import LEAST_LOGPROB, Scores, Step, Times
from gemma_model.tools import CALL_START, CallParser, join_deltas
from gemma_wire import (
    Alternative,
    Chunk,
    EngineFailure,
    FinishReason,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    Usage,
    WireError,
)


class Channel(Protocol):
    """The way back to one client."""

    def send(self, chunk: Chunk, *, last: bool) -> None:
        """Send a response."""

    def fail(self, error: WireError) -> None:
        """Send an error; nothing follows."""

    def close(self) -> None:
        """End without a response."""

    def cancelled(self) -> bool:
        """Whether the client has left."""


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
        cut_short: whether a choice of these tokens was led to its end because ``max_tokens`` drew near.
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
    cut_short: Callable[[Sequence[int]], bool] = lambda _: False


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
        self._token_ids: list[int] = []
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
        self._say(self._text.feed(step.token_ids, step.scores))
        fresh = step.token_ids[: self.tokens - before]
        self._token_ids += fresh
        self._unsent.token_ids += fresh if self._wording.token_ids else ()
        if step.last or self.stopped:
            self._say(self._text.finish())
            self.finish = self._reason(step)
        return self.finish is not None

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
        if said.call:
            self._unsent.tool_calls += self._calls.feed(said.call)
        if self._wording.logprobs:
            for token in said.tokens:
                if token.scores is not None:
                    told = _logprob(self._wording.table, token.token_id, token.scores, token.data)
                    self._unsent.logprobs.append(told)

    def _reason(self, step: Step) -> FinishReason:
        if self.stopped:
            return "stop"
        if step.finish == "length" or self._wording.cut_short(self._token_ids):
            return "length"
        return "tool_calls" if self._calls.calls else "stop"


def _logprob(table: TokenBytes, token_id: int, scores: Scores, data: bytes | None = None) -> TokenLogprob:
    """``data`` is what the text holds of the token, where that is not all of it."""
    told = _alternative(table, token_id, scores.logprob)
    if data is not None and tuple(data) != told.utf8:
        told = told.model_copy(update={"utf8": tuple(data), "token": data.decode(errors="replace")})
    top = tuple(_alternative(table, *pair) for pair in scores.top)
    return TokenLogprob(**dict(told), top=top, rank=scores.rank)


def _alternative(table: TokenBytes, token_id: int, logprob: float) -> Alternative:
    return Alternative(
        token_id=token_id,
        token=table.name(token_id),
        utf8=tuple(table[token_id]),
        logprob=max(logprob, LEAST_LOGPROB),
    )


class Answer:
    """One answer on its way out.

    Args:
        channel: to the client.
        stream: a response for each step, or one for each choice in its end.
        wording: of the request.
    """

    def __init__(self, channel: Channel, stream: bool, wording: Wording) -> None:
        self.channel = channel
        self.number: int | None = None
        """The engine's; set once it is submitted."""
        self.finished = False
        """The last response has gone; later steps are ignored."""
        self.to_cancel: set[int] = set()
        """Choices that have ended without the engine's knowing."""
        self._stream, self._wording = stream, wording
        self._opening: dict[str, Any] = {"prompt_token_ids": wording.prompt} if wording.token_ids else {}
        self._choices = [Choice(index, wording) for index in range(wording.n)]
        self._scored = False  # whether the prompt has been
        self._cached_tokens = 0
        self._times: Times | None = None

    def advance(self, steps: Iterable[Step]) -> None:
        """Send what these steps bring; several of one choice that have piled up go as one response."""
        for step in steps:
            self._note(step)
            choice = self._choices[step.choice]
            if choice.finish is not None:
                continue
            if step.error is not None or step.finish == "cancelled":
                self._break_off(step)
                return
            if choice.take(step):
                self._finish(choice, step)
        if self._stream and not self.finished:
            for choice in self._open():
                if self._opening or not choice.silent:
                    self._send(choice)

    def _note(self, step: Step) -> None:
        wording = self._wording
        if wording.prompt_logprobs and step.token_ids and not self._scored:
            told = zip(wording.prompt[1:], step.prompt_scores, strict=True)
            self._opening["prompt_logprobs"] = (None, *(_logprob(wording.table, *pair) for pair in told))
            self._scored = True
        self._cached_tokens = max(self._cached_tokens, step.cached_tokens)
        if step.times is not None and (self._times is None or step.times.decode > self._times.decode):
            self._times = step.times

    def _open(self) -> Iterator[Choice]:
        return (choice for choice in self._choices if choice.finish is None)

    def _break_off(self, step: Step) -> None:
        self.finished = True
        if step.error is not None:
            self.channel.fail(EngineFailure(step.error))
        else:
            self.channel.close()

    def _finish(self, choice: Choice, step: Step) -> None:
        self.finished = not any(self._open())
        if not step.last:
            self.to_cancel.add(step.choice)
        self._send(choice)

    def _send(self, choice: Choice) -> None:
        """All that a choice has not sent; the first chunk of an answer tells of the prompt, too."""
        added, self._opening = self._opening, {}
        if self._wording.usage:
            added["choice_usage"] = self._usage(choice)
        if self.finished:
            added |= {"usage": self._usage(*self._choices), "timings": self._timings()}
        self.channel.send(choice.chunk().model_copy(update=added), last=self.finished)

    def _usage(self, *choices: Choice) -> Usage:
        return Usage(
            prompt_tokens=len(self._wording.prompt),
            completion_tokens=sum(choice.tokens for choice in choices),
            cached_tokens=self._cached_tokens,
        )

    def _timings(self) -> Timings | None:
        times = self._times
        return None if times is None else Timings(**asdict(times))
