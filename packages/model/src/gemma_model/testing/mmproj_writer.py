"""Makes ``mmproj`` files of Gemma 3n checkpoints as llama.cpp's converter would, with the package ``gguf``.

Usage: ``python -m gemma_model.testing.mmproj_writer CHECKPOINT mmproj-FILE.gguf --kind BF16``.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gguf
from torch import Tensor

from gemma_model.weights.safetensors_files import open_safetensors
from gemma_wire.tensor_names import bare_name

MODALITIES = ("vision", "audio")
MAX_BLOCKS = 128
"""What the converter writes instead of the number of blocks of the image encoder."""


def write_mmproj(
    checkpoint: Path,
    path: Path,
    kind: str = "BF16",
    *,
    modalities: Sequence[str] = MODALITIES,
    **changes: Any,
) -> Path:
    """Write the encoders of a checkpoint.

    Args:
        checkpoint: a folder with safetensors.
        path: of the new file.
        kind: type of the tensors for which the converter does not choose another.
        modalities: whose encoders are written.
        changes: arguments of ``GGUFWriter``.
    """
    config, processor = (
        json.loads((checkpoint / f"{name}.json").read_text()) for name in ("config", "processor_config")
    )
    writer = gguf.GGUFWriter(path, "clip", **changes)
    if "vision" in modalities:
        _add_vision_config(writer, config, processor["image_processor"])
    if "audio" in modalities:
        _add_audio_config(writer, config)
    for name, tensor in encoder_tensors(checkpoint, modalities).items():
        _add_tensor(writer, mmproj_name(name), tensor, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def encoder_tensors(checkpoint: Path, modalities: Sequence[str] = MODALITIES) -> dict[str, Tensor]:
    """The tensors of the encoders, by their names without wrappers."""
    parts = tuple(part for own in modalities for part in (f"{own}_tower.", f"embed_{own}."))
    loaded = {bare_name(key): stored.load() for key, stored in open_safetensors(checkpoint).items()}
    return {
        name: tensor
        for name, tensor in loaded.items()
        if name.startswith(parts) and isinstance(tensor, Tensor)
    }


def mmproj_name(name: str) -> str:
    """The name of a tensor in an ``mmproj`` file, from the tables of the package ``gguf``.

    The tables lack a norm of the audio encoder, whose name is nevertheless among those of the format.
    """
    if block := re.fullmatch(r"vision_tower\.timm_model\.blocks\.(.+)", name):
        return f"v.blk.{block[1]}"
    if norm := re.fullmatch(r"audio_tower\.subsample_conv_projection\.conv_(\d)\.norm\.weight", name):
        base = gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.A_ENC_CONV1D_NORM].format(bid=norm[1])
        return f"{base}.weight"
    full = f"model.{name}".replace("model.audio_tower.conformer.", "conformer.layers.")
    found = _table().get_name(full, (".weight", ".bias"))
    assert found, f"{name} has no name in GGUF files"
    return str(found)


@cache
def _table() -> Any:
    return gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, MAX_BLOCKS)


def _add_vision_config(writer: Any, config: Mapping[str, Any], images: Mapping[str, Any]) -> None:
    side, normalized = images["size"]["height"], images["do_normalize"]
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_vision_projector_type(gguf.VisionProjectorType.GEMMA3NV)
    writer.add_vision_projection_dim(config["text_config"]["hidden_size"])
    writer.add_vision_image_size(side)
    writer.add_vision_patch_size(side // config["vision_soft_tokens_per_image"])
    writer.add_vision_embedding_length(config["vision_config"]["hidden_size"])
    writer.add_vision_block_count(MAX_BLOCKS)
    writer.add_vision_image_mean(images["image_mean"] if normalized else [0.0] * 3)
    writer.add_vision_image_std(images["image_std"] if normalized else [1.0] * 3)


def _add_audio_config(writer: Any, config: Mapping[str, Any]) -> None:
    audio = config["audio_config"]
    writer.add_clip_has_audio_encoder(True)
    writer.add_clip_audio_projector_type(gguf.VisionProjectorType.GEMMA3NA)
    writer.add_audio_projection_dim(config["text_config"]["hidden_size"])
    writer.add_audio_embedding_length(audio["hidden_size"])
    writer.add_audio_block_count(audio["conf_num_hidden_layers"])
    writer.add_audio_head_count(audio["conf_num_attention_heads"])
    writer.add_audio_num_mel_bins(audio["input_feat_size"])


def _add_tensor(writer: Any, name: str, tensor: Tensor, kind: str) -> None:
    if name == "v.conv_stem.conv.bias":
        tensor = tensor[None, :, None, None]
    type_ = gguf.GGMLQuantizationType[_kind(name, tensor, kind)]
    block, _ = gguf.GGML_QUANT_SIZES[type_]
    if tensor.shape[-1] % block:
        type_ = gguf.GGMLQuantizationType.F16
    writer.add_tensor(name, gguf.quants.quantize(tensor.float().numpy(), type_), raw_dtype=type_)


def _kind(name: str, tensor: Tensor, kind: str) -> str:
    """The type that the converter chooses."""
    if tensor.dim() == 1 or not name.endswith(".weight") or name.endswith("_norm.weight"):
        return "F32"
    if "input_projection" in name or "pre_encode" in name:
        return "F16"
    is_convolution = name.startswith("a.") and ".conv" in name
    return "F32" if is_convolution or "stem" in name else kind


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make an mmproj file of a Gemma 3n checkpoint.")
    parser.add_argument("checkpoint", type=Path, help="a folder with safetensors")
    parser.add_argument("file", type=Path)
    parser.add_argument("--kind", default="BF16", help="type of most tensors")
    arguments = parser.parse_args(argv)
    write_mmproj(arguments.checkpoint, arguments.file, arguments.kind)


if __name__ == "__main__":
    main()
