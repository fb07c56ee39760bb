"""Log probabilities, as chat completions and as plain completions tell them."""

import codecs
from collections.abc import Iterable, Sequence

from openai.types.chat import ChatCompletionTokenLogprob
from openai.types.chat.chat_completion_token_logprob import TopLogprob
from openai.types.completion_choice import Logprobs

import gemma_wire as wire


class LegacyLogprobs(Logprobs):
    """With ``null`` for a first token, which has none; so OpenAI answers, though its types do not say it."""

    token_logprobs: list[float | None] | None = None  # type: ignore[assignment]
    top_logprobs: list[dict[str, float] | None] | None = None  # type: ignore[assignment]


def for_chat(tokens: Iterable[wire.TokenLogprob]) -> list[ChatCompletionTokenLogprob]:
    """The entries of ``logprobs.content``."""
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


def name(token: wire.Alternative, prefix: str = "") -> str:
    r"""The token as text; one that is a piece of a character as ``\xf0\x9f``, so that no two look alike."""
    try:
        bytes(token.utf8).decode()
    except UnicodeDecodeError:
        return prefix + "".join(f"\\x{byte:02x}" for byte in token.utf8)
    return token.token


def text_bytes(token: wire.Alternative) -> bytes:
    """What a token adds to a text; a control token as it is written."""
    return bytes(token.utf8) or token.token.encode()


class Legacy:
    """Tells the tokens of one choice as ``/v1/completions`` does; offsets go on from one call to the next."""

    def __init__(self, alternatives: int) -> None:
        self._alternatives = alternatives
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def skip(self, text: str) -> None:
        """Text that is told without its tokens."""
        self._offset += len(text)

    def tell(self, tokens: Sequence[wire.TokenLogprob], first: str | None = None) -> LegacyLogprobs:
        """The next tokens.

        Args:
            tokens: with their alternatives.
            first: a token before them that has no probability, as text.
        """
        told = LegacyLogprobs(text_offset=[], token_logprobs=[], tokens=[], top_logprobs=[])
        if first is not None:
            _append(told, self._offset, first, None, None)
            self._offset += len(first)
        for token in tokens:
            _append(told, self._offset, name(token, "bytes:"), token.logprob, self._top(token))
            self._offset += len(self._decoder.decode(text_bytes(token)))
        return told

    def _top(self, token: wire.TokenLogprob) -> dict[str, float]:
        """The likeliest, and the token itself where it is not among them."""
        shown = [*token.top[: self._alternatives], token]
        return {name(other, "bytes:"): other.logprob for other in shown}


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
