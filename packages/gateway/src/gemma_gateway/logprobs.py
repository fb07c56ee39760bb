"""Log probabilities, as chat completions and as plain completions tell them."""

import codecs
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from openai.types.chat import ChatCompletionTokenLogprob
from openai.types.chat.chat_completion_token_logprob import TopLogprob
from openai.types.completion_choice import Logprobs

import gemma_wire as wire


class LegacyLogprobs(Logprobs):
    """With ``null`` for a first token, which has none; so OpenAI answers, though its types do not say it."""

    token_logprobs: list[float | None] | None = None  # type: ignore[assignment]
    top_logprobs: list[dict[str, float] | None] | None = None  # type: ignore[assignment]


def for_chat(tokens: Iterable[wire.TokenLogprob], as_ids: bool = False) -> list[ChatCompletionTokenLogprob]:
    """The entries of ``logprobs.content``; ``as_ids``: with tokens named by their ids."""
    call = _id_name if as_ids else name
    return [
        ChatCompletionTokenLogprob(
            token=call(token),
            logprob=token.logprob,
            bytes=_bytes(token),
            top_logprobs=[
                TopLogprob(token=call(other), logprob=other.logprob, bytes=_bytes(other))
                for other in token.top
            ],
        )
        for token in tokens
    ]


MANY: Final = 1000
"""Log probabilities of a prompt that are told in about a millisecond; more are told in a thread."""


def is_long(told: wire.PromptLogprobs | None) -> bool:
    """Whether to tell them takes so long that the event loop should not wait for it."""
    return told is not None and len(told.token_ids) + sum(map(len, told.top_ids)) > MANY


def for_prompt(told: wire.PromptLogprobs, top: int) -> list[dict[str, Any] | None]:
    """``prompt_logprobs`` as vLLM tells them: null for the first token, then by the ids of tokens.

    Args:
        told: by the model.
        top: so many of the likeliest are told as well.
    """
    names = {token_id: name(told.alternative(token_id, 0.0)) for token_id in told.texts}
    places = zip(told.token_ids, told.logprobs, told.ranks, told.top_ids, told.top_logprobs, strict=True)
    return [None, *(_at_place(names, top, *place) for place in places)]


def _at_place(
    names: Mapping[int, str],
    top: int,
    token_id: int,
    logprob: float,
    rank: int,
    top_ids: Sequence[int],
    top_logprobs: Sequence[float],
) -> dict[str, Any]:
    """The token that stands there comes first; the likeliest have their ranks in their order."""
    likeliest = zip(top_ids[:top], top_logprobs, range(1, top + 1), strict=False)
    return {
        str(other): {"logprob": value, "rank": place, "decoded_token": names[other]}
        for other, value, place in ((token_id, logprob, rank), *likeliest)
    }


def id_name(token_id: int) -> str:
    """A token by its id, as vLLM names it."""
    return f"token_id:{token_id}"


def _id_name(token: wire.Alternative) -> str:
    return id_name(token.token_id)


def name(token: wire.Alternative, prefix: str = "") -> str:
    r"""The token as text; one that is a piece of a character as ``\xf0\x9f``, so that no two look alike."""
    try:
        bytes(token.utf8).decode()
    except UnicodeDecodeError:
        return prefix + "".join(f"\\x{byte:02x}" for byte in token.utf8)
    return token.token


def text_bytes(token: wire.Alternative) -> bytes:
    """What a token adds to the text of a prompt, in which a control token is written."""
    return bytes(token.utf8) or token.token.encode()


class Legacy:
    """Tells the tokens of one choice as ``/v1/completions`` does; offsets go on from one call to the next.

    Args:
        alternatives: so many are told of each token; ``None``: all that come with it.
        as_ids: tokens are named by their ids.
    """

    def __init__(self, alternatives: int | None, as_ids: bool = False) -> None:
        self._alternatives = alternatives
        self._name = _id_name if as_ids else partial(name, prefix="bytes:")
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def tell(self, tokens: Sequence[wire.TokenLogprob]) -> LegacyLogprobs:
        """The next tokens, with their alternatives."""
        told = LegacyLogprobs(text_offset=[], token_logprobs=[], tokens=[], top_logprobs=[])
        for token in tokens:
            top = self._top(token, self._alternatives)
            _append(told, self._offset, self._name(token), token.logprob, top)
            self._offset += len(self._decoder.decode(bytes(token.utf8)))
        return told

    def echo(self, first: "First | None", told: wire.PromptLogprobs, top: int) -> LegacyLogprobs:
        """The tokens of a prompt, before any other; the first has no probability.

        Args:
            first: the one before those of ``told``; ``None``: the first of them is the first of all.
            told: by the model.
            top: so many alternatives are told of each.
        """
        echoed = LegacyLogprobs(text_offset=[], token_logprobs=[], tokens=[], top_logprobs=[])
        if first is not None:
            _append(echoed, self._offset, first.name, None, None)
            self._offset += len(first.text)
        for place, (token_id, logprob) in enumerate(zip(told.token_ids, told.logprobs, strict=True)):
            token, known = told.alternative(token_id, logprob), first is not None or place > 0
            alternatives = self._at(told, place, top) | {self._name(token): logprob} if known else None
            _append(echoed, self._offset, self._name(token), logprob if known else None, alternatives)
            self._offset += len(self._decoder.decode(text_bytes(token)))
        return echoed

    def _at(self, told: wire.PromptLogprobs, place: int, top: int) -> dict[str, float]:
        pairs = zip(told.top_ids[place][:top], told.top_logprobs[place], strict=False)
        return {self._name(told.alternative(*pair)): pair[1] for pair in pairs}

    def _top(self, token: wire.TokenLogprob, count: int | None) -> dict[str, float]:
        """The likeliest, and the token itself where it is not among them."""
        shown = [*token.top[:count], token]
        return {self._name(other): other.logprob for other in shown}


class First(NamedTuple):
    """A prompt's first token, which has no probability: its name, and what it adds to the text."""

    name: str
    text: str


def _append(
    told: LegacyLogprobs, offset: int, token: str, logprob: float | None, top: dict[str, float] | None
) -> None:
    assert told.text_offset is not None
    assert told.token_logprobs is not None
    assert told.tokens is not None
    assert told.top_logprobs is not None
    told.text_offset.append(offset)
    told.token_logprobs.append(logprob)
    told.tokens.append(token)
    told.top_logprobs.append(top)


def _bytes(token: wire.Alternative) -> list[int] | None:
    """``null`` for a token that stands for no text."""
    return list(token.utf8) or None


def joined(told: Sequence[Logprobs | None]) -> LegacyLogprobs | None:
    """The log probabilities of several pieces as one; ``None`` where none has any."""
    known = [piece for piece in told if piece is not None]
    if not known:
        return None
    return LegacyLogprobs(
        **{name: [item for piece in known for item in getattr(piece, name)] for name in _COLUMNS}
    )


_COLUMNS = ("text_offset", "token_logprobs", "tokens", "top_logprobs")
