"""Steps of the engine → chunks of one answer, which may have several choices."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Protocol

from gemma_model.protocol import Step, Times
from gemma_model.wording import Choice, Wording, prompt_logprobs
from gemma_wire import Chunk, EngineFailure, InvalidRequest, Timings, Usage, WireError

log = logging.getLogger(__name__)
Later = Callable[[Callable[[], None]], None]


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


class Answer:
    """One answer on its way out.

    Args:
        channel: to the client.
        stream: a response for each step, or one for each choice in its end.
        wording: of the request.
        later: runs work that takes time, in another thread.
    """

    def __init__(
        self, channel: Channel, stream: bool, wording: Wording, later: Later = lambda work: work()
    ) -> None:
        self.channel = channel
        self._later = later
        self.number: int | None = None
        """The engine's; set once it is submitted."""
        self.finished = False
        """The last response has gone; later steps are ignored."""
        self.to_cancel: set[int] = set()
        """Choices that have ended without the engine's knowing."""
        self._stream, self._wording = stream, wording
        self._opening: dict[str, Any] = {"prompt_token_ids": wording.prompt} if wording.token_ids else {}
        if wording.unenforced:
            self._opening["unenforced"] = wording.unenforced
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
            told = prompt_logprobs(wording.table, wording.prompt[1:], step.prompt_scores)
            self._opening["prompt_logprobs"] = told
            self._scored = True
        self._cached_tokens = max(self._cached_tokens, step.cached_tokens)
        if step.times is not None and (self._times is None or step.times.decode > self._times.decode):
            self._times = step.times

    def _open(self) -> Iterator[Choice]:
        return (choice for choice in self._choices if choice.finish is None)

    def _break_off(self, step: Step) -> None:
        self.finished = True
        if step.error is not None:
            self.channel.fail(_as_failure(step.error))
        else:
            self.channel.close()

    def _finish(self, choice: Choice, step: Step) -> None:
        self.finished = not any(self._open())
        if not step.last:
            self.to_cancel.add(step.choice)
        if self.finished and self._wording.fits is not None:
            self._validate(choice)
        else:
            self._send(choice)

    def _validate(self, last: Choice) -> None:
        """Send the last chunk when it is known whether all choices fit their schemas."""
        try:
            self._later(lambda: self._send_validated(last))
        except Exception:  # too much waits there, or it is closed
            self._send_validated(last)

    def _send_validated(self, last: Choice) -> None:
        try:
            valid = all(choice.fits() for choice in self._choices)
            self._send(last, schema_valid=valid)
        except Exception as error:
            log.warning("an answer could not be validated or sent", exc_info=error)
            with suppress(Exception):
                self.channel.fail(EngineFailure(f"{type(error).__name__}: {error}"))

    def _send(self, choice: Choice, **added: Any) -> None:
        """All that a choice has not sent; the first chunk of an answer tells of the request, too."""
        added |= self._opening
        self._opening = {}
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


def _as_failure(error: str) -> WireError:
    """A grammar that turns out too complex on the way is the request's fault."""
    kind, _, message = error.partition(": ")
    return InvalidRequest(message, "options.grammar") if kind == "GrammarTooComplex" else EngineFailure(error)
