"""The fields of a checkpoint's ``config.json`` that determine its memory use.

Field names are those of the checkpoint; the defaults are the values of Gemma 3n E4B.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ValidationError, model_validator

from gemma_launcher.errors import CommandError

SLIDING, FULL = "sliding_attention", "full_attention"
DTYPE_BYTES: Final = {"bfloat16": 2, "float32": 4}
COMPUTE_DTYPE: Final = {"bfloat16": "bfloat16", "float32": "float32", "float16": "bfloat16"}
"""Dtype of the stored weights → dtype of the computation. Activations overflow in fp16, so it is not used."""

_E4B: Mapping[str, Any] = {
    "text_config": {"model_type": "gemma3n_text"},
    "vision_config": {},
    "audio_config": {},
}
_E2B_TEXT = {"num_hidden_layers": 30, "num_kv_shared_layers": 10, "intermediate_size": 8192}
_E2B: Mapping[str, Any] = {**_E4B, "text_config": {"model_type": "gemma3n_text", **_E2B_TEXT}}
BUILT_IN: Final = {
    "google/gemma-3n-e4b-it": _E4B,
    "google/gemma-3n-e4b": _E4B,
    "google/gemma-3n-e2b-it": _E2B,
    "google/gemma-3n-e2b": _E2B,
}
"""Published configurations by lower-case hub id; planning for them needs no network."""


class TextShape(BaseModel, frozen=True):
    """The decoder."""

    vocab_size: int = 262_400
    hidden_size: int = 2048
    intermediate_size: tuple[int, ...]
    num_hidden_layers: int = 35
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    head_dim: int = 256
    max_position_embeddings: int = 32_768
    sliding_window: int = 512
    layer_types: tuple[str, ...]
    vocab_size_per_layer_input: int = 262_144
    hidden_size_per_layer_input: int = 256
    altup_num_inputs: int = 4
    num_kv_shared_layers: int = 15
    laurel_rank: int = 64

    @model_validator(mode="before")
    @classmethod
    def _expand_per_layer(cls, config: dict[str, Any]) -> dict[str, Any]:
        """One value per layer where the configuration gives one for all layers, or none."""
        layers = config.get("num_hidden_layers", 35)
        width = config.get("intermediate_size", 16_384)
        return {
            "layer_types": [SLIDING if (i + 1) % 5 else FULL for i in range(layers)],
            **config,
            "intermediate_size": [width] * layers if isinstance(width, int) else width,
        }

    @model_validator(mode="after")
    def _check_lengths(self) -> "TextShape":
        lengths = {len(self.layer_types), len(self.intermediate_size), self.num_hidden_layers}
        if len(lengths) > 1 or self.num_hidden_layers <= self.num_kv_shared_layers:
            raise ValueError("the lists do not fit the number of layers")
        return self

    @property
    def kv_layer_types(self) -> tuple[str, ...]:
        """The types of the layers that store keys and values; the layers after them share these."""
        return self.layer_types[: self.num_hidden_layers - self.num_kv_shared_layers]


class AudioShape(BaseModel, frozen=True):
    """The audio tower (a conformer after two convolutions) and its embedder."""

    vocab_size: int = 128
    hidden_size: int = 1536
    input_feat_size: int = 128
    conf_num_hidden_layers: int = 12
    conf_num_attention_heads: int = 8
    conf_conv_kernel_size: int = 5
    sscp_conv_channel_size: tuple[int, int] = (128, 32)
    sscp_conv_kernel_size: tuple[tuple[int, int], ...] = ((3, 3), (3, 3))
    sscp_conv_stride_size: tuple[tuple[int, int], ...] = ((2, 2), (2, 2))


class VisionShape(BaseModel, frozen=True):
    """The vision tower (a timm architecture) and its embedder."""

    vocab_size: int = 128
    hidden_size: int = 2048
    architecture: str = "mobilenetv5_300m_enc"
    model_args: dict[str, Any] = {}


class ModelShape(BaseModel, frozen=True):
    """A complete model; a text-only checkpoint has no towers."""

    text_config: TextShape
    vision_config: VisionShape | None = None
    audio_config: AudioShape | None = None
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"

    @staticmethod
    def read(config: Mapping[str, Any]) -> "ModelShape":
        """Reads the content of ``config.json``.

        Raises:
            CommandError: it is not a valid Gemma 3n configuration.
        """
        text = config.get("text_config") or config
        if text.get("model_type") != "gemma3n_text":
            raise CommandError(f"{text.get('model_type')!r} is not a Gemma 3n text model")
        complete = config if config.get("text_config") else {"text_config": config}
        dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
        if dtype not in COMPUTE_DTYPE:
            raise CommandError(f"dtype {dtype!r} is not supported, only {', '.join(COMPUTE_DTYPE)} are")
        try:
            return ModelShape.model_validate(_without_null({**complete, "dtype": dtype}))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise CommandError(f"config.json is not valid: {where}: {first['msg']}") from None
        except TypeError as error:
            raise CommandError(f"config.json is not valid: {error}") from None


def _without_null(config: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping without null values, for which the defaults apply."""
    return {
        key: _without_null(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if value is not None
    }
