"""The model's chunks as the answer to a completion request: streamed, or folded into one."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from openai.types import Completion, CompletionChoice

import gemma_wire as wire
from gemma_gateway.answers import Head, counts
from gemma_gateway.completions.question import Prompt
from gemma_gateway.logprobs import Legacy, LegacyLogprobs, joined, text_bytes
from gemma_gateway.schema.completions import CompletionRequest

Chunks = AsyncGenerator[tuple[int, wire.Chunk], None]
"""Of all prompts, each with the number of its prompt."""


class Piece(CompletionChoice):
    """A piece of a choice, which has no end yet; OpenAI answers so, its types do not say it."""

    finish_reason: Literal["stop", "length", "content_filter"] | None = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Answer:
    """What all pieces of one answer have in common.

    Args:
        head: its id and the like.
        body: what was asked.
        prompts: the prompts of ``body``.
    """

    head: Head
    body: CompletionRequest
    prompts: Sequence[Prompt]

    def index(self, number: int, chunk: wire.Chunk) -> int:
        """Which choice a chunk of a prompt's generation belongs to: all of the first prompt come first."""
        return number * self.body.candidates + chunk.index

    def piece(self, piece: Piece) -> Completion:
        """A piece of it."""
        # usage is set where it is asked for, so that it is sent: null in every piece but the last
        usage: dict[str, Any] = {"usage": None} if self.body.include_usage else {}
        return Completion(**vars(self.head), object="text_completion", choices=[piece], **usage)

    def last(self, choices: Sequence[CompletionChoice], usage: wire.Usage) -> Completion:
        """All of it, or the last piece of a stream with ``include_usage``."""
        return Completion(
            **vars(self.head), object="text_completion", choices=list(choices), usage=counts(usage)
        )


class _Teller:
    """Turns the chunks of one choice into its pieces."""

    def __init__(self, answer: Answer, prompt: Prompt, index: int) -> None:
        self._body = answer.body
        self._prompt = prompt
        self._index = index
        self._legacy = Legacy(answer.body.logprobs or 0)
        self._opened = prompt.echo is None

    def tell(self, chunk: wire.Chunk, scored: Sequence[wire.TokenLogprob | None]) -> list[Piece]:
        """The pieces that a chunk makes; ``scored`` are the prompt's tokens, for the echo."""
        pieces = []
        if not self._opened:
            self._opened = True
            pieces.append(self._piece(self._prompt.echo or "", self._echoed(scored)))
        silent = self._body.limit == 0
        if (chunk.text or chunk.logprobs) and not silent:
            pieces.append(self._piece(chunk.text, self._told(chunk.logprobs)))
        if chunk.finish_reason:
            # a plain completion has no tools: it ends with "stop" or "length"
            finish: Literal["stop", "length"]
            finish = "length" if silent or chunk.finish_reason == "length" else "stop"
            pieces.append(self._piece("", None, finish))
        return pieces

    def _told(self, tokens: Sequence[wire.TokenLogprob]) -> LegacyLogprobs | None:
        return None if self._body.logprobs is None else self._legacy.tell(tokens)

    def _echoed(self, scored: Sequence[wire.TokenLogprob | None]) -> LegacyLogprobs | None:
        if self._body.logprobs is None:
            return None
        tokens = [token for token in scored if token is not None]
        return self._legacy.tell(tokens, self._first(tokens))

    def _first(self, others: Sequence[wire.TokenLogprob]) -> str | None:
        """The prompt's first token as text; ``None`` where it is not the client's.

        The model begins a text with a token of its own, which then is what the text does not account for.
        """
        if self._prompt.first is not None:
            return self._prompt.first
        text = (self._prompt.echo or "").encode()
        rest = b"".join(text_bytes(token) for token in others)
        return text.removesuffix(rest).decode(errors="replace") or None if text.endswith(rest) else None

    def _piece(
        self, text: str, logprobs: LegacyLogprobs | None, finish: Literal["stop", "length"] | None = None
    ) -> Piece:
        return Piece(index=self._index, text=text, logprobs=logprobs, finish_reason=finish)


class _Tellers:
    """One for each choice of each prompt, and the token counts of all."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._tellers: dict[int, _Teller] = {}
        self._scored: dict[int, tuple[wire.TokenLogprob | None, ...]] = {}
        self._counted: list[wire.Usage] = []

    def tell(self, number: int, chunk: wire.Chunk) -> list[Piece]:
        """The pieces that a chunk of a prompt's generation makes."""
        self._scored.setdefault(number, chunk.prompt_logprobs)
        if chunk.usage:
            self._counted.append(chunk.usage)
        index = self._answer.index(number, chunk)
        if index not in self._tellers:
            self._tellers[index] = _Teller(self._answer, self._answer.prompts[number], index)
        return self._tellers[index].tell(chunk, self._scored[number])

    def usage(self) -> wire.Usage:
        """Of all generations together."""
        answered = 0 if self._answer.body.limit == 0 else 1
        return wire.Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in self._counted),
            completion_tokens=answered * sum(usage.completion_tokens for usage in self._counted),
            cached_tokens=sum(usage.cached_tokens for usage in self._counted),
        )


async def stream(answer: Answer, chunks: Chunks) -> AsyncGenerator[Completion, None]:
    """The answer as OpenAI streams it. Nothing is yielded before the model's first chunk has come."""
    tellers = _Tellers(answer)
    async with aclosing(chunks):
        async for number, chunk in chunks:
            for piece in tellers.tell(number, chunk):
                yield answer.piece(piece)
    if answer.body.include_usage:
        yield answer.last([], tellers.usage())


async def fold(answer: Answer, chunks: Chunks) -> Completion:
    """The whole answer: the same pieces, joined, and of each prompt's candidates the best."""
    tellers, body = _Tellers(answer), answer.body
    drafts = [_Draft() for _ in range(len(answer.prompts) * body.candidates)]
    async with aclosing(chunks):
        async for number, chunk in chunks:
            drafts[answer.index(number, chunk)].score(chunk)
            for piece in tellers.tell(number, chunk):
                drafts[piece.index].take(piece)
    kept: list[_Draft] = []
    for start in range(0, len(drafts), body.candidates):
        candidates = drafts[start : start + body.candidates]
        if body.candidates > body.choices:
            candidates.sort(key=_Draft.rank, reverse=True)
        kept += candidates[: body.choices]
    return answer.last([draft.choice(index) for index, draft in enumerate(kept)], tellers.usage())


class _Draft:
    """One choice, as far as it has come."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._scores: list[float] = []

    def score(self, chunk: wire.Chunk) -> None:
        self._scores += [token.logprob for token in chunk.logprobs]

    def rank(self) -> float:
        """The mean log probability of its tokens; no token is worse than any."""
        return sum(self._scores) / len(self._scores) if self._scores else float("-inf")

    def take(self, piece: Piece) -> None:
        self._pieces.append(piece)

    def choice(self, index: int) -> CompletionChoice:
        """The pieces, joined."""
        assert self._pieces, "an engine's last chunk of a choice tells why it ended"
        *_, last = self._pieces
        assert last.finish_reason is not None, "an engine's last chunk of a choice tells why it ended"
        return CompletionChoice(
            index=index,
            text="".join(piece.text for piece in self._pieces),
            logprobs=joined([piece.logprobs for piece in self._pieces]),
            finish_reason=last.finish_reason,
        )
