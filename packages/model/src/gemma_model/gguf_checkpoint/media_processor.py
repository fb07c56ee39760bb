"""How images and audio are prepared for the encoders of an ``mmproj`` file."""

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gemma_model.gguf_checkpoint.audio_encoder import SOFT_TOKENS, audio_bins
from gemma_model.gguf_checkpoint.metadata import Metadata
from gemma_model.gguf_checkpoint.vision_encoder import image_side
from gemma_wire.gguf import GGUF, refuse
from gemma_wire.gguf_sources import PROCESSOR_FILES

BILINEAR: Final = 2
AUDIO: Final = {
    "feature_extractor_type": "Gemma3nAudioFeatureExtractor",
    "sampling_rate": 16_000,
    "padding_value": 0.0,
    "padding_side": "right",
    "return_attention_mask": True,
    "dither": 0.0,
    "fft_length": 1024,
    "fft_overdrive": True,
    "frame_length": 512,
    "hop_length": 160,
    "input_scale_factor": 1.0,
    "max_frequency": 7600.0,
    "mel_floor": 1e-05,
    "min_frequency": 125.0,
    "per_bin_mean": None,
    "per_bin_stddev": None,
    "preemphasis": 0.97,
    "preemphasis_htk_flavor": True,
}
"""Of all published models; no key of the file has it."""


@dataclass(frozen=True)
class MediaProcessor:
    """The files for image and audio processors of transformers.

    Args:
        found: those beside the ``mmproj`` file, by name; they are used if they fit it.
        sources: where they are.
        made: the content of the file to write otherwise.
        audio_tokens: soft tokens of an audio clip.
    """

    found: Mapping[str, str] = field(repr=False)
    sources: tuple[Path, ...]
    made: Mapping[str, Any]
    audio_tokens: int

    @staticmethod
    def find(model: GGUF, modalities: Collection[str], folders: Iterable[Path]) -> "MediaProcessor":
        """The files of the first folder that has such files.

        Args:
            model: the header of the ``mmproj`` file.
            modalities: ``vision``, ``audio`` or both.
            folders: where to look.

        Raises:
            InvalidRequest: naming the file and a key.
        """
        made: dict[str, Any] = {"processor_class": "Gemma3nProcessor"}
        made |= _images(model) if "vision" in modalities else {}
        made |= {**AUDIO, "feature_size": audio_bins(model)} if "audio" in modalities else {}
        for folder in folders:
            paths = [path for name in PROCESSOR_FILES if (path := folder / name).is_file()]
            texts = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in paths}
            given = _merged(reversed(texts.values()))
            if paths and _fits(given, made):
                count = given.get("audio_seq_length", SOFT_TOKENS)
                return MediaProcessor(texts, tuple(paths), made, count)
        return MediaProcessor({}, (), made, SOFT_TOKENS)

    def files(self, image_tokens: int) -> dict[str, str]:
        """The names and contents of the files to write.

        Args:
            image_tokens: soft tokens of an image.
        """
        counts = {"image_seq_length": image_tokens, "audio_seq_length": self.audio_tokens}
        return dict(self.found) or {PROCESSOR_FILES[1]: json.dumps({**self.made, **counts}, indent=1)}


def _images(model: GGUF) -> dict[str, Any]:
    """As the file says: (pixels from 0 to 1 - mean) / standard deviation."""
    given, side = Metadata(model), image_side(model)
    mean = list(given.numbers("vision.image_mean", 3) or (0.0,) * 3)
    std = list(given.numbers("vision.image_std", 3) or (1.0,) * 3)
    if not all(map(math.isfinite, mean)) or not all(0 < one < math.inf for one in std):
        raise refuse(model.files[0], f"has the mean {mean} and the standard deviation {std} of images")
    return {
        "image_processor_type": "SiglipImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": BILINEAR,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": mean != [0.0] * 3 or std != [1.0] * 3,
        "image_mean": mean,
        "image_std": std,
    }


def _merged(texts: Iterable[str]) -> dict[str, Any]:
    """What all files say, without the sections that the newer of them have."""
    merged: dict[str, Any] = {}
    for text in texts:
        try:
            content = json.loads(text)
        except ValueError:
            return {}
        if not isinstance(content, dict):
            return {}
        sections = (content.get(name) for name in ("image_processor", "feature_extractor"))
        merged |= content
        for section in sections:
            merged |= section if isinstance(section, dict) else {}
    return merged


def _fits(given: Mapping[str, Any], made: Mapping[str, Any]) -> bool:
    """Whether files are for encoders of the same sizes."""
    if not isinstance(given.get("audio_seq_length", SOFT_TOKENS), int):
        return False
    return all(given.get(key) == made[key] for key in ("size", "feature_size") if key in made)
