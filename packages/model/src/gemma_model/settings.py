"""The model's settings, from ``config.pbtxt`` and the environment."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gemma_wire import InvalidRequest, InvalidSetting
from gemma_wire.byte_sizes import ByteSize
from gemma_wire.gguf_sources import served_name, split_hub_id

PREFIX = "GEMMA_"


class Settings(BaseModel):
    """Settings of an operator, from the parameters of ``config.pbtxt`` or the environment.

    The environment has priority: ``max_queue`` is ``GEMMA_MAX_QUEUE`` there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name: str = Field(
        "", description="Hub id, folder or GGUF file of the checkpoint; in the environment: MODEL_NAME"
    )
    checkpoint: Path | None = Field(
        None, description="Folder or GGUF file of the checkpoint, if MODEL_NAME is only its public name"
    )
    engine: Literal["native", "reference"] = Field(
        "native", description="Engine that runs the model; reference: transformers, slow and exact"
    )
    device: str = Field("auto", description="auto, cpu, cuda, or cuda:N")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="auto: as stored; fp16 is never used, because activations overflow"
    )
    quantize: Literal["none", "int8", "int4"] = Field(
        "none",
        description="Quantise the weights of a checkpoint that is not quantised when they are loaded; int4: "
        "the matrices of the layers in 4 bits, the embedding in 8. `gemma-triton quantize` does it once",
    )
    max_model_len: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Context in tokens; default: the checkpoint's own"
    )
    max_num_seqs: int = Field(16, ge=1, description="Requests that run at once")
    max_queue: int = Field(256, ge=0, description="Requests that may wait; more are refused with an error")
    prefill_chunk: int = Field(
        512, ge=1, description="Prompt tokens in one step; running streams wait for them"
    )
    prefix_cache_bytes: Annotated[ByteSize, Field(ge=0)] | None = Field(
        None,
        description="Size of the prefix cache, which keeps the keys and values of earlier prompts and "
        "responses: 2GiB, or a number of bytes; 0: none; default: a quarter of the memory that the model "
        "leaves free",
    )
    speculative_tokens: int = Field(
        16,
        ge=0,
        le=256,
        description="Tokens of a draft at most, which one step checks: the grammar, the request's prediction "
        "and repeated text give drafts, and they change the speed but not the output; 0: none",
    )
    ple: Literal["auto", "host", "device"] = Field(
        "auto",
        description="Where the table of per-layer embeddings is; host: memory-mapped from the file; auto: "
        "the same, and read into the page cache at the start if it takes at most half of the free memory",
    )
    towers: Literal["auto", "none"] = Field(
        "auto",
        description="Encoders of images and audio; auto: those of the checkpoint; none: text only, which "
        "saves their memory",
    )
    encoders: Path | None = Field(
        None,
        description="With a GGUF file: an mmproj file, or the folder of a checkpoint, whose encoders of "
        "images and audio are used; empty: the mmproj file beside it",
    )
    variants: str = Field(
        "auto",
        description="Nested models that are served under their own names, from the same tensors: "
        "comma-separated names of published slices of E4B (E2B, E1.96B, E2.54B), a .json file with others, "
        "or none; auto: E2B, if the checkpoint is E4B",
    )
    compile: Literal["auto", "off"] = Field(
        "auto",
        description="auto: a CPU uses C++ kernels, which are compiled at the first start, if there is a "
        "compiler; a GPU uses compiled layers in CUDA graphs; off: PyTorch's own operations",
    )
    media_cache_bytes: ByteSize = Field(
        256 * 2**20,
        ge=0,
        description="Size of the cache for soft tokens of images and audio: 256MiB, or a number of bytes",
    )
    max_images: int = Field(16, ge=0, description="Images in one request")
    max_image_pixels: int = Field(50_000_000, ge=1, description="Pixels in one image, before resizing")
    max_request_pixels: int = Field(
        200_000_000, ge=1, description="Pixels in all images of one request, before resizing"
    )
    max_audio: int = Field(
        16, ge=0, description="Audio clips in one request; audio over 30 seconds is cut into several"
    )
    max_audio_seconds: float = Field(3600, gt=0, description="Length of one audio file in seconds")
    max_grammar_bytes: ByteSize = Field(
        4 * 2**20, ge=1, description="Size of a grammar, or of all tools of one request, as JSON"
    )

    @model_validator(mode="after")
    def _engine_supports_them(self) -> Self:
        if self.engine == "reference" and self.towers == "none":
            raise ValueError(
                "the reference engine always loads the towers; use GEMMA_ENGINE=native with GEMMA_TOWERS=none"
            )
        if self.engine == "reference" and self.quantize != "none":
            raise ValueError(
                "the reference engine does not quantise weights; use GEMMA_ENGINE=native with "
                f"GEMMA_QUANTIZE={self.quantize}"
            )
        return self

    @property
    def public_name(self) -> str:
        """The name of the model for clients: the hub id, or the last part of the folder or file."""
        name = self.model_name or str(self.checkpoint)
        if name.endswith(".gguf"):
            return served_name(Path(name))
        return Path(name).resolve().name if Path(name).is_dir() else split_hub_id(name)[0]

    @staticmethod
    def read(parameters: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> "Settings":
        """Parameters of ``config.pbtxt``, overridden by the environment.

        Raises:
            InvalidRequest: names the wrong setting.
        """
        values = dict(parameters)
        for name in Settings.model_fields:
            if value := environ.get(variable(name)):
                values[name] = value
        try:
            return Settings.model_validate(values)
        except ValidationError as error:
            raise InvalidRequest.from_validation(error) from None


def variable(field: str) -> str:
    """The environment variable of a setting; anything else, such as a key of a checkpoint, is unchanged."""
    if field not in Settings.model_fields:
        return field
    return "MODEL_NAME" if field == "model_name" else PREFIX + field.upper()


def as_invalid_setting(error: InvalidRequest) -> InvalidSetting:
    """The same error with the name of the environment variable, for the log of Triton."""
    return InvalidSetting(": ".join(filter(None, (variable(error.field), error.message))))
