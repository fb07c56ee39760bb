"""A transcript in the form that a request asks for: complete, or as a stream of events."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Literal

from openai.types.audio import (
    Transcription,
    TranscriptionSegment,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
)
from pydantic import BaseModel
from starlette.responses import Response

import gemma_wire as wire
from gemma_gateway.logprobs import token_name
from gemma_gateway.sse import Events, StreamProtocol
from gemma_gateway.transcription.pieces import PieceChunk
from gemma_gateway.transcription.subtitles import to_srt, to_vtt
from gemma_gateway.transcription.transcript import Segment, Transcript, collect

PROTOCOL: Final = StreamProtocol(end=b"")
"""A stream ends with the event ``transcript.text.done``, as in OpenAI's document."""
UNKNOWN: Final = "unknown"
"""The language of a response whose request does not name it: it is not detected."""
Format = Literal["json", "text", "srt", "vtt", "verbose_json"]


class SegmentEvent(BaseModel):
    """A finished segment in a stream. OpenAI sends it with speakers only; ours has none."""

    type: Literal["transcript.text.segment"] = "transcript.text.segment"
    id: str
    start: float
    end: float
    text: str
    speaker: str


@dataclass(frozen=True)
class TranscriptFormat:
    """What the response contains.

    Args:
        kind: the request's ``response_format``.
        task: as it is named in ``verbose_json``.
        language: of the transcript.
        duration: of the recording, in seconds.
        temperature: that was used.
        logprobs: log probabilities are reported.
        tokens: that the audio of a piece takes in its prompt.
    """

    kind: Format
    task: Literal["transcribe", "translate"]
    language: str
    duration: float
    temperature: float
    logprobs: bool
    tokens: int

    @property
    def has_times(self) -> bool:
        """Whether it has segments with times."""
        return self.kind not in ("json", "text")

    @property
    def headers(self) -> dict[str, str]:
        """Response headers; clients compute their progress in a stream from the length."""
        return {"x-audio-seconds": f"{self.duration:.3f}"}


async def complete(
    form: TranscriptFormat, transcript: Transcript, chunks: AsyncGenerator[PieceChunk, None]
) -> Response:
    """The response once the transcript is complete."""
    async with aclosing(collect(transcript, chunks)) as deltas:
        async for _ in deltas:
            pass
    if form.kind in ("json", "verbose_json"):
        body = _verbose(form, transcript) if form.kind == "verbose_json" else _json(form, transcript)
        text, media_type = body.model_dump_json(exclude_unset=True), "application/json"
    else:
        text, media_type = _document(form, transcript), "text/vtt" if form.kind == "vtt" else "text/plain"
    return Response(text, media_type=media_type, headers=form.headers)


async def stream(
    form: TranscriptFormat, transcript: Transcript, chunks: AsyncGenerator[PieceChunk, None]
) -> Events:
    """The events: deltas of the text, or finished segments if the format has times; then the complete one."""
    sent = 0
    async with aclosing(collect(transcript, chunks)) as deltas:
        async for delta in deltas:
            if not form.has_times and (delta.text or (form.logprobs and delta.logprobs)):
                logprobs = {"logprobs": _logprobs(delta.logprobs)} if form.logprobs else {}
                yield TranscriptionTextDeltaEvent(type="transcript.text.delta", delta=delta.text, **logprobs)
            if form.has_times and delta.ended:
                for segment in transcript.segments[sent:]:
                    yield _segment_event(sent, segment)
                    sent += 1
    yield _done(form, transcript)


def _done(form: TranscriptFormat, transcript: Transcript) -> TranscriptionTextDoneEvent:
    extra: dict[str, Any] = {"logprobs": _logprobs(transcript.logprobs)} if form.logprobs else {}
    if form.kind == "verbose_json":
        verbose = _verbose(form, transcript)
        extra = {"segments": verbose.segments, "language": verbose.language, "duration": verbose.duration}
    return TranscriptionTextDoneEvent(
        type="transcript.text.done",
        text=_document(form, transcript),
        usage=_usage(form, transcript),
        **extra,
    )


def _document(form: TranscriptFormat, transcript: Transcript) -> str:
    match form.kind:
        case "srt":
            return to_srt(transcript.segments)
        case "vtt":
            return to_vtt(transcript.segments)
    return transcript.text


def _json(form: TranscriptFormat, transcript: Transcript) -> BaseModel:
    logprobs = {"logprobs": _logprobs(transcript.logprobs)} if form.logprobs else {}
    return Transcription(text=transcript.text, usage=_usage(form, transcript), **logprobs)


def _verbose(form: TranscriptFormat, transcript: Transcript) -> TranscriptionVerbose:
    task: dict[str, Any] = {"task": form.task}  # in OpenAI's responses, and not in its types
    return TranscriptionVerbose(
        **task,
        language=form.language,
        duration=round(form.duration, 3),
        text=transcript.text,
        segments=[_segment(form, number, segment) for number, segment in enumerate(transcript.segments)],
        usage={"type": "duration", "seconds": round(form.duration, 3)},
    )


def _segment(form: TranscriptFormat, number: int, segment: Segment) -> TranscriptionSegment:
    start, end = segment.piece.seconds
    return TranscriptionSegment(
        id=number,
        seek=round(start * 100),
        start=start,
        end=end,
        text=segment.text,
        tokens=segment.token_ids,
        temperature=form.temperature,
        avg_logprob=segment.average_logprob,
        compression_ratio=segment.compression_ratio,
        no_speech_prob=0.0,
    )


def _segment_event(number: int, segment: Segment) -> SegmentEvent:
    start, end = segment.piece.seconds
    return SegmentEvent(
        type="transcript.text.segment", id=str(number), start=start, end=end, text=segment.text, speaker=""
    )


def _usage(form: TranscriptFormat, transcript: Transcript) -> Mapping[str, Any]:
    audio = transcript.pieces * form.tokens
    return {
        "type": "tokens",
        "input_tokens": transcript.prompt_tokens,
        "input_token_details": {
            "text_tokens": max(transcript.prompt_tokens - audio, 0),
            "audio_tokens": min(audio, transcript.prompt_tokens),
        },
        "output_tokens": transcript.completion_tokens,
        "total_tokens": transcript.prompt_tokens + transcript.completion_tokens,
    }


def _logprobs(tokens: "list[wire.TokenLogprob] | tuple[wire.TokenLogprob, ...]") -> list[dict[str, Any]]:
    return [
        {"token": token_name(token), "logprob": token.logprob, "bytes": list(token.utf8)} for token in tokens
    ]
