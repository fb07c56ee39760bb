"""Trains the audio tower before the text model: to classify sounds and to count beeps."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import Gemma3nAudioFeatureExtractor

from demo.progress import Progress
from demo.schedule import batches, train_tower
from demo.sizes import AUDIO
from demo.sounds import KINDS, LONGEST, MOST_BEEPS, Sound, make_sound

FRAMES = round(LONGEST * 100)  # of 10 ms
PEAK_RATE = 2e-3
BATCH = 32


@dataclass(frozen=True)
class Sounds:
    """Sounds and one recording of each.

    Args:
        heard: the sounds.
        features: log-mel ``[sounds, frames, bins]``, fp16, zeros after the end.
        frames: number of frames without padding, ``[sounds]``.
    """

    heard: list[Sound]
    features: Tensor
    frames: Tensor

    def __len__(self) -> int:
        return len(self.heard)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[batch, frames, bins]`` in fp32, and the padding mask ``[batch, frames]``."""
        padding = torch.arange(self.features.shape[1]) >= self.frames[rows, None]
        return self.features[rows].float(), padding


def sound_of(seed: int, number: int) -> tuple[Sound, NDArray[np.float32]]:
    """Sound ``number`` of the series of a seed."""
    return make_sound(np.random.default_rng([seed, number]))


def _recorded(task: tuple[int, int]) -> tuple[Sound, NDArray[np.float16]]:
    sound, samples = sound_of(*task)
    made = Gemma3nAudioFeatureExtractor()(samples, max_length=len(samples), return_tensors="np")
    return sound, made["input_features"][0].astype(np.float16)


def record_sounds(seed: int, count: int, workers: int) -> Sounds:
    """A series of sounds. It depends on the seed only, not on the number of processes."""
    with ProcessPoolExecutor(workers) as pool:
        recorded = list(pool.map(_recorded, ((seed, number) for number in range(count)), chunksize=64))
    features = torch.zeros(count, FRAMES, recorded[0][1].shape[1], dtype=torch.float16)
    frames = torch.tensor([min(FRAMES, len(made)) for _, made in recorded])
    for row, (_, made) in enumerate(recorded):
        features[row, : frames[row]] = torch.from_numpy(made[:FRAMES])
    return Sounds([sound for sound, _ in recorded], features, frames)


def kept_sounds(folder: Path, seed: int, count: int, workers: int) -> Sounds:
    """A series of sounds, from the cache file if an earlier run has written it."""
    path = folder / f"sounds-{seed}-{count}.pt"
    if not path.is_file():
        print(f"making {count:,} sounds", flush=True)
        torch.save(record_sounds(seed, count, workers), path)
    sounds: Sounds = torch.load(path, weights_only=False)  # made here
    return sounds


class SoundHeads(nn.Module):
    """Heads that predict the kind of sound and the number of beeps from the soft tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Linear(int(AUDIO["hidden_size"]), len(KINDS) + 1)

    def forward(self, features: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[batch, kinds]``, a mean over tokens; number of beeps ``[batch]``, a sum over tokens."""
        there = ~padding[..., None]
        kind, onset = self.token(features).split([len(KINDS), 1], dim=-1)
        beeps = (2 * onset.sigmoid() * there).sum((1, 2))
        return (kind * there).sum(1) / there.sum(1).clamp(min=1), beeps


def train_audio(tower: nn.Module, sounds: Sounds, seed: int, progress: Progress) -> SoundHeads:
    """Train the audio tower. Returns its heads, for ``hearing``."""
    generator = torch.Generator().manual_seed(seed)
    heads = SoundHeads()

    def losses(rows: Tensor) -> dict[str, Tensor]:
        kinds, beeps = _targets(sounds, rows)
        said, counted = heads(*hear(tower, *sounds.batch(rows)))
        kind = functional.cross_entropy(said, kinds)
        return {"kind": kind, "beeps": functional.smooth_l1_loss(counted, beeps)}

    rows = batches(len(sounds), BATCH, progress.steps, generator)
    train_tower(tower, heads, losses, rows, PEAK_RATE, progress)
    return heads


def hear(tower: nn.Module, features: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
    """Soft tokens ``[batch, tokens, width]`` of log-mel features, and their padding mask."""
    made = tower(features, padding)
    return made.last_hidden_state, made.audio_mel_mask


@torch.no_grad()
def hearing(tower: nn.Module, heads: SoundHeads, sounds: Sounds) -> dict[str, float]:
    """Accuracy on held-out sounds, by head, from 0 to 1."""
    tower.eval()
    right: dict[str, list[Tensor]] = {"kind": [], "beeps": []}
    for rows in torch.arange(len(sounds)).split(BATCH):
        kinds, beeps = _targets(sounds, rows)
        said, counted = heads(*hear(tower, *sounds.batch(rows)))
        right["kind"].append(said.argmax(-1) == kinds)
        right["beeps"].append(counted.round() == beeps)
    return {name: torch.cat(parts).float().mean().item() for name, parts in right.items()}


def _targets(sounds: Sounds, rows: Tensor) -> tuple[Tensor, Tensor]:
    heard = [sounds.heard[row] for row in rows.tolist()]
    kinds = torch.tensor([KINDS.index(sound.kind) for sound in heard])
    return kinds, torch.tensor([float(min(sound.beeps, MOST_BEEPS)) for sound in heard])
