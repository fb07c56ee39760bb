"""The texts of the pieces, joined to a transcript without lost or doubled words."""

import unicodedata
import zlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import NamedTuple

import gemma_wire as wire
from gemma_gateway.media.segmentation import AudioPiece
from gemma_gateway.transcription.pieces import PieceChunk


class Delta(NamedTuple):
    """What is added to the transcript.

    Args:
        text: with the separator from the text before it.
        logprobs: of its tokens, if they are reported.
        ended: it is the last of its piece.
    """

    text: str
    logprobs: tuple[wire.TokenLogprob, ...]
    ended: bool


@dataclass
class Segment:
    """The text of one piece."""

    piece: AudioPiece
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[wire.TokenLogprob] = field(default_factory=list)

    @property
    def average_logprob(self) -> float:
        """Of its tokens; 0 without tokens."""
        return sum(token.logprob for token in self.logprobs) / max(len(self.logprobs), 1)

    @property
    def compression_ratio(self) -> float:
        """Its length divided by its compressed length; high for a text that repeats itself."""
        data = self.text.encode()
        return len(data) / len(zlib.compress(data))


class Transcript:
    """Collects the chunks of all pieces, in order."""

    def __init__(self, pieces: Sequence[AudioPiece]) -> None:
        self.text = ""
        self.prompt_tokens = self.completion_tokens = 0
        self._segments = [Segment(piece) for piece in pieces]
        self._spaces = ""  # at the end of a segment so far; not part of the text unless more text follows

    @property
    def pieces(self) -> int:
        """Their number, with and without text."""
        return len(self._segments)

    @property
    def segments(self) -> list[Segment]:
        """Those with text."""
        return [segment for segment in self._segments if segment.text]

    @property
    def logprobs(self) -> list[wire.TokenLogprob]:
        """Of all tokens."""
        return [token for segment in self._segments for token in segment.logprobs]

    def add(self, number: int, chunk: wire.Chunk) -> Delta:
        """What a chunk of a piece adds."""
        segment = self._segments[number]
        segment.token_ids += chunk.token_ids
        segment.logprobs += chunk.logprobs
        if chunk.usage:
            self.prompt_tokens += chunk.usage.prompt_tokens
            self.completion_tokens += chunk.usage.completion_tokens
        return Delta(self._add_text(segment, chunk.text), chunk.logprobs, chunk.usage is not None)

    def _add_text(self, segment: Segment, text: str) -> str:
        text = self._spaces + text if segment.text else text.lstrip()
        kept = text.rstrip()
        self._spaces = text[len(kept) :]
        if not kept:
            return ""
        added = kept if segment.text else _separator(self.text, kept) + kept
        segment.text += kept
        self.text += added
        return added


async def collect(
    transcript: Transcript, chunks: AsyncGenerator[PieceChunk, None]
) -> AsyncGenerator[Delta, None]:
    """The deltas of a transcript, which is complete at the end."""
    async with aclosing(chunks):
        async for number, chunk in chunks:
            yield transcript.add(number, chunk)


def _separator(before: str, after: str) -> str:
    """A space between two pieces, except in scripts that are written without spaces."""
    if not before or (_is_wide(before[-1]) and _is_wide(after[0])):
        return ""
    return " "


def _is_wide(character: str) -> bool:
    """Whether it is Chinese or Japanese; Korean is as wide, but has spaces."""
    wide = unicodedata.east_asian_width(character) in "WF"
    return wide and not unicodedata.name(character, "").startswith("HANGUL")
