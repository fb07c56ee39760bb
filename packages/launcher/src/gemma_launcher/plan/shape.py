"""The numbers of a checkpoint's ``config.json`` that decide how much memory it takes.

Names are the checkpoint's own; a number that is missing there is the one that Gemma 3n E4B has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gemma_launcher.errors import CannotStart

SLIDING, FULL = "sliding_attention", "full_attention"
ITEM_BYTES: Final = {"bfloat16": 2, "float32": 4}
RUNS_AS: Final = {"bfloat16": "bfloat16", "float32": "float32", "float16": "bfloat16"}
"""Stored as → computed as; fp16 is never used, activations overflow in it."""

_GEMMA: Mapping[str, Any] = {
    "model_type": "gemma3n",
    "dtype": "bfloat16",
    "vision_config": {},
    "audio_config": {},
}
_E4B: Mapping[str, Any] = {**_GEMMA, "text_config": {"model_type": "gemma3n_text"}}
_E2B: Mapping[str, Any] = {
    **_GEMMA,
    "text_config": {
        "model_type": "gemma3n_text",
        "num_hidden_layers": 30,
        "num_kv_shared_layers": 10,
        "intermediate_size": 8192,
    },
}
BUILT_IN: Final = {
    "google/gemma-3n-e4b-it": _E4B,
    "google/gemma-3n-e4b": _E4B,
    "google/gemma-3n-e2b-it": _E2B,
    "google/gemma-3n-e2b": _E2B,
}
"""Published configurations, by their hub ids in lower case: planning for them needs no network."""


@dataclass(frozen=True)
class Text:
    """The decoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: tuple[int, ...]
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    sliding_window: int
    layer_types: tuple[str, ...]
    vocab_size_per_layer_input: int
    hidden_size_per_layer_input: int
    altup_num_inputs: int
    num_kv_shared_layers: int
    laurel_rank: int

    @property
    def layers(self) -> int:
        """All of them."""
        return len(self.layer_types)

    @property
    def stored(self) -> tuple[str, ...]:
        """The types of the layers that store keys and values; those after them borrow."""
        return self.layer_types[: self.layers - self.num_kv_shared_layers]


@dataclass(frozen=True)
class Audio:
    """The audio tower, a conformer behind two convolutions, and its embedder."""

    vocab_size: int
    hidden_size: int
    input_feat_size: int
    conf_num_hidden_layers: int
    conf_num_attention_heads: int
    conf_conv_kernel_size: int
    channels: tuple[int, int]
    kernels: tuple[tuple[int, int], ...]
    strides: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Vision:
    """The vision tower, a network that timm knows by name, and its embedder."""

    vocab_size: int
    hidden_size: int
    architecture: str
    altered: bool


@dataclass(frozen=True)
class Shape:
    """A whole model; a text-only checkpoint has no towers."""

    text: Text
    vision: Vision | None
    audio: Audio | None
    stored_as: str

    @staticmethod
    def read(config: Mapping[str, Any]) -> "Shape":
        """From ``config.json``.

        Raises:
            CannotStart: it is not that of a Gemma 3n, or makes no sense.
        """
        try:
            return _read(config)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CannotStart(f"config.json cannot be understood: {error}") from None


def _read(config: Mapping[str, Any]) -> Shape:
    text = config.get("text_config") or config
    if text.get("model_type") != "gemma3n_text":
        raise CannotStart(f"{text.get('model_type')!r} is no Gemma 3n text model")
    vision, audio = (
        config.get(f"{tower}_config") if "text_config" in config else None for tower in ("vision", "audio")
    )
    stored = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    if stored not in RUNS_AS:
        raise CannotStart(f"dtype {stored!r} is not served, only {', '.join(RUNS_AS)} are")
    return Shape(
        _text(text),
        None if vision is None else _vision(vision),
        None if audio is None else _audio(audio),
        stored,
    )


def _text(config: Mapping[str, Any]) -> Text:
    layers = int(config.get("num_hidden_layers", 35))
    every_fifth = [FULL if (i + 1) % 5 == 0 else SLIDING for i in range(layers)]
    widths = config.get("intermediate_size") or 16_384
    text = Text(
        vocab_size=int(config.get("vocab_size", 262_400)),
        hidden_size=int(config.get("hidden_size", 2048)),
        intermediate_size=(widths,) * layers if isinstance(widths, int) else tuple(map(int, widths)),
        num_attention_heads=int(config.get("num_attention_heads", 8)),
        num_key_value_heads=int(config.get("num_key_value_heads", 2)),
        head_dim=int(config.get("head_dim", 256)),
        max_position_embeddings=int(config.get("max_position_embeddings", 32_768)),
        sliding_window=int(config.get("sliding_window", 512)),
        layer_types=tuple(config.get("layer_types") or every_fifth),
        vocab_size_per_layer_input=int(config.get("vocab_size_per_layer_input", 262_144)),
        hidden_size_per_layer_input=int(config.get("hidden_size_per_layer_input", 256)),
        altup_num_inputs=int(config.get("altup_num_inputs", 4)),
        num_kv_shared_layers=int(config.get("num_kv_shared_layers", 15)),
        laurel_rank=int(config.get("laurel_rank", 64)),
    )
    if not len(text.layer_types) == len(text.intermediate_size) == layers > text.num_kv_shared_layers:
        raise ValueError("its lists do not fit the number of layers")
    return text


def _vision(config: Mapping[str, Any]) -> Vision:
    return Vision(
        vocab_size=int(config.get("vocab_size", 128)),
        hidden_size=int(config.get("hidden_size", 2048)),
        architecture=str(config.get("architecture", "mobilenetv5_300m_enc")),
        altered=bool(config.get("model_args")),
    )


def _audio(config: Mapping[str, Any]) -> Audio:
    first, second = config.get("sscp_conv_channel_size", (128, 32))
    return Audio(
        vocab_size=int(config.get("vocab_size", 128)),
        hidden_size=int(config.get("hidden_size", 1536)),
        input_feat_size=int(config.get("input_feat_size", 128)),
        conf_num_hidden_layers=int(config.get("conf_num_hidden_layers", 12)),
        conf_num_attention_heads=int(config.get("conf_num_attention_heads", 8)),
        conf_conv_kernel_size=int(config.get("conf_conv_kernel_size", 5)),
        channels=(int(first), int(second)),
        kernels=tuple((int(h), int(w)) for h, w in config.get("sscp_conv_kernel_size", ((3, 3), (3, 3)))),
        strides=tuple((int(h), int(w)) for h, w in config.get("sscp_conv_stride_size", ((2, 2), (2, 2)))),
    )
