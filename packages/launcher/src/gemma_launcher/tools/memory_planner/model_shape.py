"""The fields of a checkpoint's ``config.json`` that determine its memory use.

Field names are those of the checkpoint; the defaults are those of transformers.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ValidationError, model_validator

from gemma_launcher.errors import CommandError

SLIDING, FULL = "sliding_attention", "full_attention"
MAX_LAYERS: Final = 1000
"""Far more than any model has."""

DTYPE_BYTES: Final = {"bfloat16": 2, "float32": 4}
COMPUTE_DTYPE: Final = {"bfloat16": "bfloat16", "float32": "float32", "float16": "bfloat16"}
"""Dtype of the stored weights → dtype of the computation. Activations overflow in fp16, so it is not used."""

_E4B: Mapping[str, Any] = {
    "model_type": "gemma3n",
    "text_config": {"model_type": "gemma3n_text"},
    "vision_config": {},
    "audio_config": {},
}
_E2B_TEXT = {"num_hidden_layers": 30, "num_kv_shared_layers": 10, "intermediate_size": 8192}
_E2B: Mapping[str, Any] = {**_E4B, "text_config": {"model_type": "gemma3n_text", **_E2B_TEXT}}
_SMALL = {
    "model_type": "gemma3_text",
    "vocab_size": 262_144,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32_768,
    "sliding_window": 512,
}
_270M = {**_SMALL, "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18}
_1B = {**_SMALL, "hidden_size": 1152, "intermediate_size": 6912}
_4B_TEXT = {"hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 34, "sliding_window": 1024}
_4B = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", **_4B_TEXT}}
BUILT_IN: Final[Mapping[str, Mapping[str, Any]]] = {
    "google/gemma-3n-e4b-it": _E4B,
    "google/gemma-3n-e4b": _E4B,
    "google/gemma-3n-e2b-it": _E2B,
    "google/gemma-3n-e2b": _E2B,
    "google/gemma-3-270m-it": _270M,
    "google/gemma-3-270m": _270M,
    "google/gemma-3-1b-it": _1B,
    "google/gemma-3-1b-pt": _1B,
    "google/gemma-3-4b-it": _4B,
    "google/gemma-3-4b-pt": _4B,
}
"""Published configurations by lower-case hub id; planning for them needs no network."""


class TextShape(BaseModel, frozen=True):
    """The decoder of Gemma 3, and what that of Gemma 3n has in common with it."""

    layers_of_a_period: ClassVar[int] = 6
    default_layers: ClassVar[int] = 26
    default_width: ClassVar[int] = 9216

    vocab_size: int = 262_208
    hidden_size: int = 2304
    intermediate_size: tuple[int, ...]
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 256
    max_position_embeddings: int = 131_072
    sliding_window: int = 4096
    layer_types: tuple[str, ...]

    @model_validator(mode="before")
    @classmethod
    def _expand_per_layer(cls, config: dict[str, Any]) -> dict[str, Any]:
        """One value per layer where the configuration gives one for all layers, or none."""
        layers = config.get("num_hidden_layers", cls.default_layers)
        if not isinstance(layers, int) or not 0 < layers <= MAX_LAYERS:
            raise ValueError(f"num_hidden_layers is {layers!r}, not an integer from 1 to {MAX_LAYERS}")
        period = config.get("sliding_window_pattern", cls.layers_of_a_period)
        width = config.get("intermediate_size", cls.default_width)
        return {
            "layer_types": [SLIDING if (i + 1) % period else FULL for i in range(layers)],
            **config,
            "num_hidden_layers": layers,
            "intermediate_size": [width] * layers if isinstance(width, int) else width,
        }

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        lengths = {len(self.layer_types), len(self.intermediate_size), self.num_hidden_layers}
        if len(lengths) > 1 or not self.kv_layer_types:
            raise ValueError("the lists do not fit the number of layers")
        return self

    @property
    def kv_layer_types(self) -> tuple[str, ...]:
        """The types of the layers that store keys and values."""
        return self.layer_types


class Gemma3nTextShape(TextShape, frozen=True):
    """The decoder of Gemma 3n."""

    layers_of_a_period: ClassVar[int] = 5
    default_layers: ClassVar[int] = 35
    default_width: ClassVar[int] = 16_384

    vocab_size: int = 262_400
    hidden_size: int = 2048
    num_hidden_layers: int = 35
    num_key_value_heads: int = 2
    max_position_embeddings: int = 32_768
    sliding_window: int = 512
    vocab_size_per_layer_input: int = 262_144
    hidden_size_per_layer_input: int = 256
    altup_num_inputs: int = 4
    num_kv_shared_layers: int = 15
    laurel_rank: int = 64

    @property
    def kv_layer_types(self) -> tuple[str, ...]:
        """The types of the layers that store keys and values; the layers after them share these."""
        return self.layer_types[: max(self.num_hidden_layers - self.num_kv_shared_layers, 0)]


TEXT_SHAPES: Final[Mapping[str, type[TextShape]]] = {
    "gemma3_text": TextShape,
    "gemma3n_text": Gemma3nTextShape,
}
"""By ``model_type`` of the text part."""


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
    """A complete model; one without towers takes text alone."""

    text_config: TextShape
    vision_config: VisionShape | None = None
    audio_config: AudioShape | None = None
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"

    @staticmethod
    def read(config: Mapping[str, Any]) -> "ModelShape":
        """Reads the content of ``config.json``. The vision tower of Gemma 3 is left out: it is not loaded.

        Raises:
            CommandError: it is not a valid configuration of a supported model.
        """
        text = config.get("text_config") or config
        model_type = str(text.get("model_type"))
        if model_type not in TEXT_SHAPES:
            raise CommandError(f"{model_type!r} is not supported, only {' and '.join(TEXT_SHAPES)} are")
        dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
        if dtype not in COMPUTE_DTYPE:
            raise CommandError(f"dtype {dtype!r} is not supported, only {', '.join(COMPUTE_DTYPE)} are")
        towers = ("vision_config", "audio_config") if model_type == "gemma3n_text" else ()
        parts = {key: config[key] for key in towers if "text_config" in config and key in config}
        try:
            shape = TEXT_SHAPES[model_type].model_validate(_without_null(text))
            return ModelShape.model_validate({"text_config": shape, "dtype": dtype, **_without_null(parts)})
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
