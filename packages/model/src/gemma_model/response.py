"""Engine outputs → the response chunks of one request, which may have several choices."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Protocol

from gemma_model.completion_output import CompletionOutput, OutputOptions, to_prompt_logprobs
from gemma_model.engine_types import EngineOutput
from gemma_wire import Chunk, EngineFailure, InvalidRequest, Timings, Usage, WireError

log = logging.getLogger(__name__)
RunTask = Callable[[Callable[[], None]], None]


class Channel(Protocol):
    """The channel back to one client."""

    def send(self, chunk: Chunk, *, last: bool) -> None:
        """Send a response."""

    def fail(self, error: WireError) -> None:
        """Send an error; nothing follows."""

    def close(self) -> None:
        """End without a response."""

    def cancelled(self) -> bool:
        """Whether the client has disconnected."""


class ResponseStream:
    """The response to one request.

    Args:
        channel: to the client.
        stream: send a chunk for each engine output; else one chunk for each choice, at its end.
        options: of the request.
        run_task: runs a slow task in another thread.
    """

    def __init__(
        self,
        channel: Channel,
        stream: bool,
        options: OutputOptions,
        run_task: RunTask = lambda task: task(),
    ) -> None:
        self.channel = channel
        self._run_task = run_task
        self.request_id: int | None = None
        """The engine's; set once the request is submitted."""
        self.finished = False
        """The last chunk has been sent; later outputs are ignored."""
        self.to_cancel: set[int] = set()
        """Choices that have ended, which the engine does not know yet."""
        self._stream, self._options = stream, options
        self._first_chunk: dict[str, Any] = {"prompt_token_ids": options.prompt} if options.token_ids else {}
        if options.unenforced:
            self._first_chunk["unenforced"] = options.unenforced
        self._choices = [CompletionOutput(index, options) for index in range(options.n)]
        self._prompt_logprobs_known = False
        self._cached_tokens = 0
        self._prediction_tokens: dict[int, tuple[int, int]] = {}  # accepted and rejected, by choice
        self._timings: Timings | None = None

    def advance(self, outputs: Iterable[EngineOutput]) -> None:
        """Send what these outputs bring; several queued outputs of one choice become one chunk."""
        for output in outputs:
            self._note(output)
            choice = self._choices[output.choice]
            if choice.finish is not None:
                continue
            if output.error is not None or output.finish == "cancelled":
                self._abort(output)
                return
            if choice.add(output):
                self._finish(choice, output)
        if self._stream and not self.finished:
            for choice in self._open():
                if self._first_chunk or choice.has_news:
                    self._send(choice)

    def _note(self, output: EngineOutput) -> None:
        options = self._options
        if options.prompt_logprobs and output.token_ids and not self._prompt_logprobs_known:
            self._first_chunk["prompt_logprobs"] = to_prompt_logprobs(
                options.table, options.prompt[1:], output.prompt_logprobs
            )
            self._prompt_logprobs_known = True
        self._cached_tokens = max(self._cached_tokens, output.cached_tokens)
        if output.token_ids:
            counts = output.accepted_prediction_tokens, output.rejected_prediction_tokens
            self._prediction_tokens[output.choice] = counts
        timings = output.timings
        if timings is not None and (self._timings is None or timings.decode > self._timings.decode):
            self._timings = timings

    def _open(self) -> Iterator[CompletionOutput]:
        return (choice for choice in self._choices if choice.finish is None)

    def _abort(self, output: EngineOutput) -> None:
        self.finished = True
        if output.error is not None:
            self.channel.fail(_to_wire_error(output.error))
        else:
            self.channel.close()

    def _finish(self, choice: CompletionOutput, output: EngineOutput) -> None:
        self.finished = not any(self._open())
        if not output.last:
            self.to_cancel.add(output.choice)
        if self.finished and self._options.is_valid is not None:
            self._validate(choice)
        else:
            self._send(choice)

    def _validate(self, last: CompletionOutput) -> None:
        """Send the last chunk once all choices are validated against their schemas."""
        try:
            self._run_task(lambda: self._send_validated(last))
        except Exception:  # the worker pool is full or closed
            self._send_validated(last)

    def _send_validated(self, last: CompletionOutput) -> None:
        try:
            valid = all(choice.is_valid() for choice in self._choices)
            self._send(last, schema_valid=valid)
        except Exception as error:
            log.warning("a response could not be validated or sent", exc_info=error)
            with suppress(Exception):
                self.channel.fail(EngineFailure(f"{type(error).__name__}: {error}"))

    def _send(self, choice: CompletionOutput, **added: Any) -> None:
        """All that a choice has not sent yet; the first chunk of a response also describes the request."""
        added |= self._first_chunk
        self._first_chunk = {}
        if self._options.usage:
            added["choice_usage"] = self._usage(choice)
        if self.finished:
            added |= {"usage": self._usage(*self._choices), "timings": self._timings}
        self.channel.send(choice.next_chunk().model_copy(update=added), last=self.finished)

    def _usage(self, *choices: CompletionOutput) -> Usage:
        usage = Usage(
            prompt_tokens=len(self._options.prompt),
            completion_tokens=sum(choice.tokens for choice in choices),
            cached_tokens=self._cached_tokens,
        )
        if not self._options.prediction:
            return usage
        counts = [self._prediction_tokens.get(choice.index, (0, 0)) for choice in choices]
        accepted, rejected = (sum(column) for column in zip(*counts, strict=True))
        added = {"accepted_prediction_tokens": accepted, "rejected_prediction_tokens": rejected}
        return usage.model_copy(update=added)


def _to_wire_error(error: str) -> WireError:
    """A grammar that turns out to be too complex during generation is the request's fault."""
    kind, _, message = error.partition(": ")
    return InvalidRequest(message, "options.grammar") if kind == "GrammarTooComplex" else EngineFailure(error)
