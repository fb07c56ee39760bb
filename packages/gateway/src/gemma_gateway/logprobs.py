"""Log probabilities in the forms of chat completions, plain completions and prompts."""

import codecs
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from openai.types.chat import ChatCompletionTokenLogprob
from openai.types.chat.chat_completion_token_logprob import TopLogprob
from openai.types.completion_choice import Logprobs

import gemma_wire as wire


class LegacyLogprobs(Logprobs):
    """The form of ``/v1/completions``. The first token has null, which OpenAI's type does not declare."""

    token_logprobs: list[float | None] | None = None  # type: ignore[assignment]
    top_logprobs: list[dict[str, float] | None] | None = None  # type: ignore[assignment]


def to_chat_logprobs(
    tokens: Iterable[wire.TokenLogprob], as_ids: bool = False
) -> list[ChatCompletionTokenLogprob]:
    """The entries of ``logprobs.content``.

    Args:
        tokens: generated tokens.
        as_ids: name tokens by their ids.
    """
    name = _id_name if as_ids else token_name
    return [
        ChatCompletionTokenLogprob(
            token=name(token),
            logprob=token.logprob,
            bytes=_bytes(token),
            top_logprobs=[
                TopLogprob(token=name(other), logprob=other.logprob, bytes=_bytes(other))
                for other in token.top
            ],
        )
        for token in tokens
    ]


LARGE: Final = 1000
"""Log probabilities of a prompt that are formatted in about a millisecond; more are formatted in a thread."""


def is_large(logprobs: wire.PromptLogprobs | None) -> bool:
    """Whether formatting them would block the event loop for too long."""
    return logprobs is not None and len(logprobs.token_ids) + sum(map(len, logprobs.top_ids)) > LARGE


def to_prompt_logprobs(logprobs: wire.PromptLogprobs, top: int) -> list[dict[str, Any] | None]:
    """``prompt_logprobs`` in vLLM's form: null for the first token, then token id → entry for each position.

    Args:
        logprobs: from the engine.
        top: the number of alternatives that are reported for each token.
    """
    names = {token_id: token_name(logprobs.alternative(token_id, 0.0)) for token_id in logprobs.texts}
    positions = zip(
        logprobs.token_ids,
        logprobs.logprobs,
        logprobs.ranks,
        logprobs.top_ids,
        logprobs.top_logprobs,
        strict=True,
    )
    return [None, *(_prompt_entries(names, top, *position) for position in positions)]


def _prompt_entries(
    names: Mapping[int, str],
    top: int,
    token_id: int,
    logprob: float,
    rank: int,
    top_ids: Sequence[int],
    top_logprobs: Sequence[float],
) -> dict[str, Any]:
    """The prompt's own token is the first entry; the alternatives follow by rank."""
    alternatives = zip(top_ids[:top], top_logprobs, range(1, top + 1), strict=False)
    return {
        str(other): {"logprob": value, "rank": place, "decoded_token": names[other]}
        for other, value, place in ((token_id, logprob, rank), *alternatives)
    }


def id_name(token_id: int) -> str:
    """The name of a token by its id, in vLLM's form."""
    return f"token_id:{token_id}"


def _id_name(token: wire.Alternative) -> str:
    return id_name(token.token_id)


def token_name(token: wire.Alternative, prefix: str = "") -> str:
    r"""The token's text. Incomplete UTF-8 is written as ``\xf0\x9f``, which keeps tokens distinct."""
    try:
        bytes(token.utf8).decode()
    except UnicodeDecodeError:
        return prefix + "".join(f"\\x{byte:02x}" for byte in token.utf8)
    return token.token


def text_bytes(token: wire.Alternative) -> bytes:
    """The bytes that a token adds to the text of a prompt, where control tokens are written out."""
    return bytes(token.utf8) or token.token.encode()


class LegacyLogprobsEncoder:
    """Encodes the tokens of one choice as ``/v1/completions`` does; text offsets continue between calls.

    Args:
        alternatives: the number of alternatives per token; ``None``: all that the engine reports.
        as_ids: name tokens by their ids.
    """

    def __init__(self, alternatives: int | None, as_ids: bool = False) -> None:
        self._alternatives = alternatives
        self._name = _id_name if as_ids else partial(token_name, prefix="bytes:")
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def encode(self, tokens: Sequence[wire.TokenLogprob]) -> LegacyLogprobs:
        """The next generated tokens, with their alternatives."""
        encoded = LegacyLogprobs(text_offset=[], token_logprobs=[], tokens=[], top_logprobs=[])
        for token in tokens:
            top = self._top(token, self._alternatives)
            _append(encoded, self._offset, self._name(token), token.logprob, top)
            self._offset += len(self._decoder.decode(bytes(token.utf8)))
        return encoded

    def encode_prompt(
        self, first: "FirstToken | None", logprobs: wire.PromptLogprobs, top: int
    ) -> LegacyLogprobs:
        """The tokens of an echoed prompt, before any generated token. The first has no log probability.

        Args:
            first: the token before those of ``logprobs``; ``None``: the first of them is the first of all.
            logprobs: from the engine.
            top: the number of alternatives per token.
        """
        encoded = LegacyLogprobs(text_offset=[], token_logprobs=[], tokens=[], top_logprobs=[])
        if first is not None:
            _append(encoded, self._offset, first.name, None, None)
            self._offset += len(first.text)
        for place, (token_id, logprob) in enumerate(zip(logprobs.token_ids, logprobs.logprobs, strict=True)):
            token, known = logprobs.alternative(token_id, logprob), first is not None or place > 0
            alternatives = self._at(logprobs, place, top) | {self._name(token): logprob} if known else None
            _append(encoded, self._offset, self._name(token), logprob if known else None, alternatives)
            self._offset += len(self._decoder.decode(text_bytes(token)))
        return encoded

    def _at(self, logprobs: wire.PromptLogprobs, place: int, top: int) -> dict[str, float]:
        pairs = zip(logprobs.top_ids[place][:top], logprobs.top_logprobs[place], strict=False)
        return {self._name(logprobs.alternative(*pair)): pair[1] for pair in pairs}

    def _top(self, token: wire.TokenLogprob, count: int | None) -> dict[str, float]:
        """The most likely tokens, and the token itself if it is not among them."""
        shown = [*token.top[:count], token]
        return {self._name(other): other.logprob for other in shown}


class FirstToken(NamedTuple):
    """A prompt's first token, which has no log probability: its name and the text that it adds."""

    name: str
    text: str


def _append(
    encoded: LegacyLogprobs, offset: int, token: str, logprob: float | None, top: dict[str, float] | None
) -> None:
    assert encoded.text_offset is not None
    assert encoded.token_logprobs is not None
    assert encoded.tokens is not None
    assert encoded.top_logprobs is not None
    encoded.text_offset.append(offset)
    encoded.token_logprobs.append(logprob)
    encoded.tokens.append(token)
    encoded.top_logprobs.append(top)


def _bytes(token: wire.Alternative) -> list[int] | None:
    """``null`` for a token without text."""
    return list(token.utf8) or None


def join_logprobs(parts: Sequence[Logprobs | None]) -> LegacyLogprobs | None:
    """The log probabilities of several deltas as one; ``None`` if no delta has any."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    return LegacyLogprobs(
        **{name: [item for part in known for item in getattr(part, name)] for name in _COLUMNS}
    )


_COLUMNS = ("text_offset", "token_logprobs", "tokens", "top_logprobs")
