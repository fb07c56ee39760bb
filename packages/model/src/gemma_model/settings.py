"""The model's settings, read once."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gemma_wire import InvalidRequest

PREFIX = "GEMMA_"


class Settings(BaseModel):
    """What an operator can set: in ``config.pbtxt`` as parameters, or in the environment.

    The environment wins: ``max_queue`` is ``GEMMA_MAX_QUEUE`` there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name: str = Field("", description="Hub id or folder of the checkpoint; the environment: MODEL_NAME")
    checkpoint: Path | None = Field(
        None, description="Folder of the checkpoint, when it is not where MODEL_NAME says"
    )
    engine: Literal["native", "reference"] = Field(
        "native", description="Which engine runs the model; reference: plain transformers, slow and exact"
    )
    device: str = Field("auto", description="auto, cpu, cuda, or cuda:N")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="auto: as stored; fp16 is never used, activations overflow in it"
    )
    max_model_len: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Context in tokens; the checkpoint's own when not set"
    )
    max_num_seqs: int = Field(16, ge=1, description="Requests that run at once")
    max_queue: int = Field(256, ge=0, description="Requests that wait; one more is told to come back later")
    prefill_chunk: int = Field(
        512, ge=1, description="Prompt tokens in one step; while they run, nothing else does"
    )
    rewind: int = Field(
        0,
        ge=0,
        description="Tokens by which a conversation longer than the sliding window may be taken back and "
        "still continue from the cache",
    )
    ple: Literal["auto", "host", "device"] = Field(
        "auto",
        description="Where the table of per-layer embeddings lives; host: memory-mapped from the file; auto: "
        "the same, and copied into host memory while requests run if it takes at most half of what is free",
    )
    towers: Literal["auto", "none"] = Field(
        "auto",
        description="auto: those that the checkpoint has, for pictures and sounds; none: text alone, without "
        "the memory that they take",
    )
    variants: str = Field(
        "auto",
        description="Nested models that are served under names of their own, from the same tensors: names of "
        "published slices of E4B with commas between (E2B, E1.96B, E2.54B), a .json file with others, or "
        "none; auto: E2B, when the checkpoint is E4B",
    )
    compile: Literal["auto", "off"] = Field(
        "auto",
        description="auto: a CPU uses kernels compiled at the first start, if there is a C++ "
        "compiler, a GPU with compiled layers in CUDA graphs; off: with PyTorch's own operations",
    )
    media_cache_bytes: int = Field(
        256 * 2**20, ge=0, description="Soft tokens of pictures and sounds that are kept"
    )
    max_images: int = Field(16, ge=0, description="Pictures in one request")
    max_image_pixels: int = Field(50_000_000, ge=1, description="Pixels in one picture, before resizing")
    max_request_pixels: int = Field(
        200_000_000, ge=1, description="Pixels in all pictures of one request, before resizing"
    )
    max_audio: int = Field(4, ge=0, description="Sounds in one request")
    max_audio_seconds: float = Field(
        30.0, gt=0, description="Length of one sound; never more than the checkpoint can hear"
    )
    max_grammar_bytes: int = Field(
        4 * 2**20, ge=1, description="A grammar, or all tools of one request, as JSON"
    )

    @property
    def public_name(self) -> str:
        """What clients call the model: the hub id, or the last part of the folder."""
        name = self.model_name or str(self.checkpoint)
        return Path(name).resolve().name if Path(name).is_dir() else name

    @staticmethod
    def read(parameters: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> "Settings":
        """Parameters of ``config.pbtxt``, overridden by the environment.

        Raises:
            InvalidRequest: naming the setting that is wrong.
        """
        values = dict(parameters)
        for name in Settings.model_fields:
            if value := environ.get("MODEL_NAME" if name == "model_name" else PREFIX + name.upper()):
                values[name] = value
        try:
            return Settings.model_validate(values)
        except ValidationError as error:
            raise InvalidRequest.from_validation(error) from None
