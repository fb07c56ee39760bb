"""The model's chunks as the answer to a completion request: streamed, or folded into one."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from openai.types import Completion, CompletionChoice
from pydantic import SerializeAsAny

import gemma_wire as wire
from gemma_gateway.answers import Head, counts
from gemma_gateway.completions.question import Prompt
from gemma_gateway.errors import BadRequest
from gemma_gateway.logprobs import (
    First,
    Legacy,
    LegacyLogprobs,
    for_prompt,
    id_name,
    is_long,
    joined,
    text_bytes,
)
from gemma_gateway.schema.completions import CompletionRequest
from gemma_gateway.threads import in_thread

MAX_PROMPT_SCORES = 2**20
"""Log probabilities that one response may tell of all its prompts."""
Chunks = AsyncGenerator[tuple[int, wire.Chunk], None]
"""Of all prompts, each with the number of its prompt."""


class Choice(CompletionChoice):
    """With what vLLM tells beside, to those who ask for it."""

    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[dict[str, Any] | None] | None = None


class Piece(Choice):
    """A piece of a choice, which has no end yet; OpenAI answers so, its types do not say it."""

    finish_reason: Literal["stop", "length", "content_filter"] | None = None  # type: ignore[assignment]


class Told(Completion):
    """With all that its choices tell, which is more than OpenAI's types know."""

    choices: list[SerializeAsAny[CompletionChoice]]


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

    def piece(self, piece: Piece, so_far: wire.Usage | None) -> Completion:
        """A piece of it, and the token counts of its choice so far where they are asked for."""
        # usage is set where it is asked for, so that it is sent: null in every piece but the last
        told = counts(so_far) if so_far and self.body.continuous_usage else None
        usage: dict[str, Any] = {"usage": told} if self.body.include_usage else {}
        return Told(**vars(self.head), object="text_completion", choices=[piece], **usage)

    def last(self, choices: Sequence[CompletionChoice], usage: wire.Usage) -> Completion:
        """All of it, or the last piece of a stream with ``include_usage``."""
        return Told(**vars(self.head), object="text_completion", choices=list(choices), usage=counts(usage))


class _Teller:
    """Turns the chunks of one choice into its pieces.

    Args:
        answer: that the choice belongs to.
        prompt: that it goes on with.
        index: which choice of the answer it is.
        opening: the first chunk of the prompt's generation, which tells of the prompt.
    """

    def __init__(self, answer: Answer, prompt: Prompt, index: int, opening: wire.Chunk) -> None:
        self._body = answer.body
        self._prompt = prompt
        self._index = index
        alternatives = None if answer.body.logprob_token_ids else answer.body.logprobs or 0
        self._legacy = Legacy(alternatives, bool(answer.body.return_tokens_as_token_ids))
        self._opening: wire.Chunk | None = opening

    def tell(self, chunk: wire.Chunk) -> list[Piece]:
        """The pieces that a chunk makes."""
        pieces = []
        if self._opening is not None and self._prompt.echo is not None:
            pieces.append(self._piece(self._prompt.echo, self._echoed(self._opening)))
        silent = self._body.limit == 0
        if (chunk.text or chunk.logprobs or (chunk.token_ids and self._body.return_token_ids)) and not silent:
            pieces.append(self._piece(chunk.text, self._told(chunk.logprobs), token_ids=chunk.token_ids))
        if chunk.finish_reason:
            # a plain completion has no tools: it ends with "stop" or "length"
            finish: Literal["stop", "length"]
            finish = "length" if silent or chunk.finish_reason == "length" else "stop"
            pieces.append(self._piece("", None, finish))
        return pieces

    def _told(self, tokens: Sequence[wire.TokenLogprob]) -> LegacyLogprobs | None:
        return None if self._body.logprobs is None else self._legacy.tell(tokens)

    def _echoed(self, opening: wire.Chunk) -> LegacyLogprobs | None:
        if self._body.logprobs is None:
            return None
        told = opening.prompt_logprobs or wire.PromptLogprobs()
        return self._legacy.echo(self._first(opening, told), told, self._body.logprobs)

    def _first(self, opening: wire.Chunk, told: wire.PromptLogprobs) -> First | None:
        """The prompt's first token; ``None`` where it is not the client's.

        The model begins a text with a token of its own, which then is what the text does not account for.
        """
        text = (self._prompt.echo or "").encode()
        rest = b"".join(text_bytes(told.alternative(token_id, 0.0)) for token_id in told.token_ids)
        begun = text.removesuffix(rest).decode(errors="replace") if text.endswith(rest) else ""
        name = self._prompt.first or begun
        if not name:
            return None
        if self._body.return_tokens_as_token_ids and opening.prompt_token_ids:
            name = id_name(opening.prompt_token_ids[0])
        return First(name, begun if self._prompt.shows_first else "")

    def _piece(
        self,
        text: str,
        logprobs: LegacyLogprobs | None,
        finish: Literal["stop", "length"] | None = None,
        token_ids: Sequence[int] = (),
    ) -> Piece:
        told = self._of_prompt()
        if self._body.return_token_ids:
            told["token_ids"] = list(token_ids)
        return Piece(index=self._index, text=text, logprobs=logprobs, finish_reason=finish, **told)

    def _of_prompt(self) -> dict[str, Any]:
        """What is told of the prompt beside its echo: in the first piece, to those who ask for it."""
        opening, self._opening, told = self._opening, None, dict[str, Any]()
        if opening is not None and self._body.return_token_ids:
            told["prompt_token_ids"] = list(opening.prompt_token_ids)
        if opening and opening.prompt_logprobs is not None and self._body.prompt_logprobs is not None:
            told["prompt_logprobs"] = for_prompt(opening.prompt_logprobs, self._body.prompt_logprobs)
        return told


class _Tellers:
    """One for each choice of each prompt, and the token counts of all."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._tellers: dict[int, _Teller] = {}
        self._openings: dict[int, wire.Chunk] = {}
        self._counted: list[wire.Usage] = []
        self._scores = 0

    async def tell(self, number: int, chunk: wire.Chunk) -> list[Piece]:
        """The pieces that a chunk of a prompt's generation makes."""
        opening = self._openings.get(number, chunk)
        opens = self._answer.index(number, chunk) not in self._tellers
        work = partial(self._tell, number, chunk)
        return await in_thread(work) if opens and is_long(opening.prompt_logprobs) else work()

    def _tell(self, number: int, chunk: wire.Chunk) -> list[Piece]:
        opening = self._openings.setdefault(number, chunk)
        if opening is chunk:
            self._check_scores(chunk)
        if chunk.usage:
            self._counted.append(chunk.usage)
        index = self._answer.index(number, chunk)
        if index not in self._tellers:
            self._tellers[index] = _Teller(self._answer, self._answer.prompts[number], index, opening)
        return self._tellers[index].tell(chunk)

    def _check_scores(self, opening: wire.Chunk) -> None:
        """Each choice tells those of its prompt; of many prompts they would fill the memory."""
        told = opening.prompt_logprobs or wire.PromptLogprobs()
        alternatives = sum(map(len, told.top_ids))
        self._scores += (len(told.token_ids) + alternatives) * self._answer.body.candidates
        if self._scores > MAX_PROMPT_SCORES:
            sentence = f"The prompts have more than {MAX_PROMPT_SCORES:,} log probabilities to tell."
            raise BadRequest(sentence, param="prompt", code="array_above_max_length")

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
            for piece in await tellers.tell(number, chunk):
                yield answer.piece(piece, chunk.choice_usage)
    if answer.body.include_usage:
        yield answer.last([], tellers.usage())


async def fold(answer: Answer, chunks: Chunks) -> Completion:
    """The whole answer: the same pieces, joined, and of each prompt's candidates the best."""
    tellers, body = _Tellers(answer), answer.body
    drafts = [_Draft() for _ in range(len(answer.prompts) * body.candidates)]
    async with aclosing(chunks):
        async for number, chunk in chunks:
            drafts[answer.index(number, chunk)].score(chunk)
            for piece in await tellers.tell(number, chunk):
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
        return Choice(
            index=index,
            text="".join(piece.text for piece in self._pieces),
            logprobs=joined([piece.logprobs for piece in self._pieces]),
            finish_reason=last.finish_reason,
            **self._details(),
        )

    def _details(self) -> dict[str, Any]:
        """What is told beside the text: of the prompt in the first piece, the tokens' ids in all."""
        first = self._pieces[0]
        names = first.model_fields_set & {"prompt_token_ids", "prompt_logprobs"}
        told = {name: getattr(first, name) for name in names}
        if first.token_ids is not None:
            told["token_ids"] = [token_id for piece in self._pieces for token_id in piece.token_ids or ()]
        return told
