"""``/v1/audio/transcriptions`` and ``/v1/audio/translations``."""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from gemma_gateway.disconnect import while_connected
from gemma_gateway.errors import BadRequest
from gemma_gateway.generation import Chunks, EngineCall, generate
from gemma_gateway.json_schema_report import JsonSchemaReport
from gemma_gateway.media.recording import Recording, decode_audio
from gemma_gateway.media.segmentation import AudioPiece, Segmentation
from gemma_gateway.model_registry import ResolvedModel
from gemma_gateway.routes.common import Gateway, get_gateway
from gemma_gateway.schema.transcription import SpeechRequest, TranscriptionRequest, TranslationRequest
from gemma_gateway.sse import open_stream
from gemma_gateway.transcription.instruction import instruction
from gemma_gateway.transcription.pieces import PieceCall, generate_pieces
from gemma_gateway.transcription.response import PROTOCOL, UNKNOWN, TranscriptFormat, complete, stream
from gemma_gateway.transcription.transcript import Transcript
from gemma_gateway.upload import multipart_form

router = APIRouter()
CLIP_SECONDS: Final = 30.0
CLIP_TOKENS: Final = 188
"""Of Gemma 3n, if the server does not describe its model's."""


@router.post("/v1/audio/transcriptions", response_model=None)
async def transcribe(request: Request, gateway: Annotated[Gateway, Depends(get_gateway)]) -> Response:
    """The text of the speech in an audio file."""
    async with multipart_form(request, TranscriptionRequest) as body:
        return await _respond(request, gateway, body)


@router.post("/v1/audio/translations", response_model=None)
async def translate(request: Request, gateway: Annotated[Gateway, Depends(get_gateway)]) -> Response:
    """The same, translated into English."""
    async with multipart_form(request, TranslationRequest) as body:
        return await _respond(request, gateway, body)


async def _respond(
    request: Request, gateway: Gateway, body: TranscriptionRequest | TranslationRequest
) -> Response:
    model = await gateway.models.resolve(body.model)
    if "audio" not in model.info.modalities:
        sentence = f"The model '{model.id}' does not support audio."
        raise BadRequest(sentence, param="model", code="unsupported_modality")
    recording, pieces = await while_connected(request.receive, _read(gateway, body, model))
    form, transcript = _format(body, model, recording), Transcript(pieces)
    call = PieceCall(
        instruction(body), model.option, body.temperature, form.logprobs or form.kind == "verbose_json"
    )

    def chunks_of(engine_call: EngineCall) -> Chunks:
        state, report = request.state, JsonSchemaReport()
        return generate(
            gateway.engine, gateway.models, engine_call, state.request_id, state.cache_salt, report
        )

    concurrent = max(model.info.max_num_seqs // 2, 1)  # the rest is for other clients
    chunks = generate_pieces(pieces, recording.samples, call, chunks_of, concurrent)
    if not getattr(body, "stream", False):
        return await while_connected(request.receive, complete(form, transcript, chunks))
    ping = gateway.settings.sse_ping_seconds
    response = await open_stream(request.receive, stream(form, transcript, chunks), ping, protocol=PROTOCOL)
    response.headers.update(form.headers)
    return response


async def _read(
    gateway: Gateway, body: SpeechRequest, model: ResolvedModel
) -> tuple[Recording, list[AudioPiece]]:
    """The audio, and how it is cut."""
    if not body.file.size:
        raise BadRequest("The file 'file' is empty.", param="file", code="empty_audio_file")
    recording = await decode_audio(body.file.file, "file", gateway.settings.max_audio_seconds)
    segmentation = Segmentation(
        threshold=body.vad.threshold,
        prefix_padding=body.vad.prefix_padding_ms / 1000,
        silence_duration=body.vad.silence_duration_ms / 1000,
        longest=model.info.audio_seconds or CLIP_SECONDS,
    )
    return recording, await asyncio.to_thread(segmentation.pieces, recording.samples)


def _format(
    body: TranscriptionRequest | TranslationRequest, model: ResolvedModel, recording: Recording
) -> TranscriptFormat:
    own = isinstance(body, TranscriptionRequest)
    return TranscriptFormat(
        kind=body.response_format,
        task="transcribe" if own else "translate",
        language=(body.language or UNKNOWN) if isinstance(body, TranscriptionRequest) else "english",
        duration=recording.seconds,
        temperature=body.temperature,
        logprobs=isinstance(body, TranscriptionRequest) and body.logprobs,
        tokens=model.info.audio_tokens or CLIP_TOKENS,
    )
