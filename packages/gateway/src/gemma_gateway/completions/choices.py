"""One choice of a completion response: engine chunks as deltas, and deltas joined to a complete choice."""

from collections.abc import Sequence
from typing import Any, Literal

from openai.types import CompletionChoice

import gemma_wire as wire
from gemma_gateway.completions.request import CompletionPrompt
from gemma_gateway.logprobs import (
    FirstToken,
    LegacyLogprobs,
    LegacyLogprobsEncoder,
    id_name,
    join_logprobs,
    text_bytes,
    to_prompt_logprobs,
)
from gemma_gateway.schema.completions import CompletionRequest


class CompletionResponseChoice(CompletionChoice):
    """With the fields that vLLM adds for clients that request them."""

    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[dict[str, Any] | None] | None = None


class CompletionStreamChoice(CompletionResponseChoice):
    """A delta of a choice, without an end so far: OpenAI sends null, which its type does not declare."""

    finish_reason: Literal["stop", "length", "content_filter"] | None = None  # type: ignore[assignment]


class CompletionChoiceStreamer:
    """Turns the engine's chunks of one choice into the deltas that a stream sends.

    Args:
        body: the request.
        prompt: the prompt that the choice continues.
        index: of the choice in the response.
        first: the first chunk of the prompt's generation, which has the data about the prompt.
    """

    def __init__(
        self, body: CompletionRequest, prompt: CompletionPrompt, index: int, first: wire.Chunk
    ) -> None:
        self._body = body
        self._prompt = prompt
        self._index = index
        alternatives = None if body.logprob_token_ids else body.logprobs or 0
        self._encoder = LegacyLogprobsEncoder(alternatives, bool(body.return_tokens_as_token_ids))
        self._first: wire.Chunk | None = first
        """Until the data about the prompt has been reported."""

    def next(self, chunk: wire.Chunk) -> list[CompletionStreamChoice]:
        """The deltas that a chunk makes."""
        choices = []
        if self._first is not None and self._prompt.echo is not None:
            choices.append(self._choice(self._prompt.echo, self._echo_logprobs(self._first)))
        omitted = self._body.limit == 0
        new_ids = chunk.token_ids and self._body.return_token_ids
        if (chunk.text or chunk.logprobs or new_ids) and not omitted:
            logprobs = None if self._body.logprobs is None else self._encoder.encode(chunk.logprobs)
            choices.append(self._choice(chunk.text, logprobs, token_ids=chunk.token_ids))
        if chunk.finish_reason:
            # a plain completion has no tools, so it ends with "stop" or "length"
            finish: Literal["stop", "length"]
            finish = "length" if omitted or chunk.finish_reason == "length" else "stop"
            choices.append(self._choice("", None, finish))
        return choices

    def _echo_logprobs(self, first: wire.Chunk) -> LegacyLogprobs | None:
        if self._body.logprobs is None:
            return None
        logprobs = first.prompt_logprobs or wire.PromptLogprobs()
        return self._encoder.encode_prompt(self._first_token(first, logprobs), logprobs, self._body.logprobs)

    def _first_token(self, first: wire.Chunk, logprobs: wire.PromptLogprobs) -> FirstToken | None:
        """The prompt's first token; ``None`` if it is the BOS token that the model adds.

        The text of the first token is what remains of the prompt without the text of the others.
        """
        text = (self._prompt.echo or "").encode()
        rest = b"".join(text_bytes(logprobs.alternative(token_id, 0.0)) for token_id in logprobs.token_ids)
        beginning = text.removesuffix(rest).decode(errors="replace") if text.endswith(rest) else ""
        name = self._prompt.first or beginning
        if not name:
            return None
        if self._body.return_tokens_as_token_ids and first.prompt_token_ids:
            name = id_name(first.prompt_token_ids[0])
        return FirstToken(name, beginning if self._prompt.shows_first else "")

    def _choice(
        self,
        text: str,
        logprobs: LegacyLogprobs | None,
        finish: Literal["stop", "length"] | None = None,
        token_ids: Sequence[int] = (),
    ) -> CompletionStreamChoice:
        fields = self._prompt_fields()
        if self._body.return_token_ids:
            fields["token_ids"] = list(token_ids)
        return CompletionStreamChoice(
            index=self._index, text=text, logprobs=logprobs, finish_reason=finish, **fields
        )

    def _prompt_fields(self) -> dict[str, Any]:
        """The fields about the prompt that are requested; in the first delta only."""
        first, self._first, fields = self._first, None, dict[str, Any]()
        if first is not None and self._body.return_token_ids:
            fields["prompt_token_ids"] = list(first.prompt_token_ids)
        if first and first.prompt_logprobs is not None and self._body.prompt_logprobs is not None:
            fields["prompt_logprobs"] = to_prompt_logprobs(first.prompt_logprobs, self._body.prompt_logprobs)
        return fields


class CompletionChoiceAccumulator:
    """Joins the deltas of one choice."""

    def __init__(self) -> None:
        self._deltas: list[CompletionStreamChoice] = []
        self._logprobs: list[float] = []

    def add_scores(self, chunk: wire.Chunk) -> None:
        """Takes in the log probabilities of a chunk, for ``mean_logprob``."""
        self._logprobs += [token.logprob for token in chunk.logprobs]

    def mean_logprob(self) -> float:
        """The mean log probability of the choice's tokens; minus infinity without tokens."""
        return sum(self._logprobs) / len(self._logprobs) if self._logprobs else float("-inf")

    def add(self, choice: CompletionStreamChoice) -> None:
        """Takes in the next delta."""
        self._deltas.append(choice)

    def choice(self, index: int) -> CompletionChoice:
        """The complete choice."""
        assert self._deltas, "an engine's last chunk of a choice has a finish_reason"
        last = self._deltas[-1]
        assert last.finish_reason is not None, "an engine's last chunk of a choice has a finish_reason"
        return CompletionResponseChoice(
            index=index,
            text="".join(delta.text for delta in self._deltas),
            logprobs=join_logprobs([delta.logprobs for delta in self._deltas]),
            finish_reason=last.finish_reason,
            **self._extra_fields(),
        )

    def _extra_fields(self) -> dict[str, Any]:
        """The fields about the prompt, from the first delta, and the token ids of all deltas."""
        first = self._deltas[0]
        names = first.model_fields_set & {"prompt_token_ids", "prompt_logprobs"}
        fields = {name: getattr(first, name) for name in names}
        if first.token_ids is not None:
            fields["token_ids"] = [token_id for delta in self._deltas for token_id in delta.token_ids or ()]
        return fields
