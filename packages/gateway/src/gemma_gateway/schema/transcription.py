"""``POST /v1/audio/transcriptions`` and ``/translations``: the fields of the form."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError
from starlette.datastructures import UploadFile

from gemma_gateway.schema.languages import language_name
from gemma_gateway.schema.strict_model import StrictModel, Unsupported, conflict, one_of

_SPEAKERS = Unsupported(hint="the model does not tell speakers apart")


def _is_file(value: object) -> UploadFile:
    if not isinstance(value, UploadFile):
        raise PydanticCustomError("not_a_file", "expected a file, a part of the form with a filename")
    return value


def _name(text: str) -> str:
    name = language_name(text)
    if name is None:
        raise PydanticCustomError(
            "language", "expected an ISO 639-1 code, such as 'en', or a language's name"
        )
    return name


def _no_words(granularity: str) -> str:
    if granularity == "word":
        raise PydanticCustomError(
            "unsupported", "not supported", {"noop_values": ("segment",), "hint": "the model gives no times"}
        )
    return granularity


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


AudioFile = Annotated[Any, BeforeValidator(_is_file)]
Language = Annotated[str, AfterValidator(_name)]
Granularity = Annotated[Literal["word", "segment"], AfterValidator(_no_words)]


class ServerVad(StrictModel):
    """How silences are found."""

    type: Literal["server_vad"]
    prefix_padding_ms: int = Field(300, ge=0, le=5_000)
    silence_duration_ms: int = Field(1_000, ge=100, le=30_000, description="default 1,000; OpenAI's is 200")
    threshold: float = Field(0.5, ge=0, le=1, description="1: 20 dB above the background")


ChunkingStrategy = Annotated[
    Annotated[Literal["auto"], Tag("<string>")] | Annotated[ServerVad, Tag("<object>")],
    one_of({str: "<string>", dict: "<object>"}, "'auto' or an object"),
]


class SpeechRequest(StrictModel):
    """What transcriptions and translations share."""

    file: AudioFile
    model: str
    prompt: str | None = Field(None, description="added to the instruction as context")
    temperature: float = Field(0.0, ge=0, le=1, description="0: the most likely token; it is never raised")

    @property
    def vad(self) -> ServerVad:
        """How silences are found."""
        return _AUTO


class TranscriptionRequest(SpeechRequest):
    """The form of a transcription."""

    language: Language | None = Field(None, description="an ISO 639-1 code or a name; not detected")
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = Field(
        "json", description="all but `diarized_json`"
    )
    stream: bool = Field(
        False, description="with formats that have times: finished segments, then the complete document"
    )
    include: Annotated[list[Literal["logprobs"]], BeforeValidator(_as_list)] = Field(
        [], description="with the format `json`"
    )
    timestamp_granularities: Annotated[list[Granularity], BeforeValidator(_as_list)] = Field(
        ["segment"], description="`word` is refused: the model gives no times"
    )
    chunking_strategy: ChunkingStrategy | None = Field(
        None, description="audio is always cut at silences; `server_vad` says at which"
    )

    # Unsupported, unless the value is a no-op.
    known_speaker_names: Annotated[Any, _SPEAKERS] = None
    known_speaker_references: Annotated[Any, _SPEAKERS] = None

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.include and self.response_format != "json":
            raise conflict("include", "is only allowed with the format 'json'")
        return self

    @property
    def logprobs(self) -> bool:
        """Whether log probabilities are returned."""
        return bool(self.include)

    @property
    def vad(self) -> ServerVad:
        """How silences are found."""
        return self.chunking_strategy if isinstance(self.chunking_strategy, ServerVad) else _AUTO


class TranslationRequest(SpeechRequest):
    """The form of a translation into English."""

    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"


_AUTO: Final = ServerVad(type="server_vad")
