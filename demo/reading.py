"""Trains the text model on the outputs of the trained towers.

The towers do not run here. Their outputs for each image and sound of the pools are computed once, and the
towers of the model are replaced by a look-up. A step then takes as long as a step of the text model alone.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from demo.encode import IGNORED, Batch, in_batches
from demo.hearing import Sounds, hear
from demo.lessons import (
    Lesson,
    chat_lesson,
    colour_lesson,
    look_lesson,
    picture_lesson,
    several_lesson,
    sound_lesson,
)
from demo.pool import Pictures
from demo.progress import Progress
from demo.schedule import schedule
from demo.sizes import IMAGE_GRID, VISION_WIDTH
from demo.together import Team
from demo.towers import see
from gemma_model.prompt_encoder import PromptEncoder

CHECKPOINT_EVERY = 250  # steps


@dataclass(frozen=True)
class Course:
    """A part of the training, with its own learning rate schedule.

    Args:
        name: prefix of its files.
        steps: number of steps.
        rate: peak learning rate.
        shares: number of lessons of each kind in a step; even, because two processes share them.
    """

    name: str
    steps: int
    rate: float
    shares: Mapping[str, int]


COURSES = (
    Course("text", 2200, 3e-3, {"picture": 14, "chat": 14, "sound": 4}),
    Course("colour", 150, 1e-3, {"colour": 48, "picture": 2, "chat": 4, "sound": 2}),
    Course("look", 500, 1e-3, {"look": 32, "several": 4, "picture": 4, "chat": 10, "sound": 4}),
)
"""First descriptions, then questions about single shapes. A kind of question is learnt in a hundred steps if
a course has mainly this kind, and not at all among many others (docs/log.md)."""


@dataclass(frozen=True)
class Remembered:
    """The outputs of a tower for a pool.

    Args:
        features: ``[rows, tokens, channels]``.
        padding: padding mask of the tokens, for audio.
    """

    features: Tensor
    padding: Tensor | None = None


class Memory(nn.Module):
    """Replaces a tower: its inputs are row numbers, its outputs the computed outputs of the tower."""

    def __init__(self, remembered: Remembered) -> None:
        super().__init__()
        self._remembered = remembered

    def forward(
        self, rows: Tensor | None = None, *_: Tensor, pixel_values: Tensor | None = None, **__: Any
    ) -> Any:
        """The outputs of either tower, in the form that ``Gemma3nModel`` uses."""
        if pixel_values is not None:
            seen = self._remembered.features[pixel_values].float()  # [batch, tokens, channels]
            shape = (len(seen), VISION_WIDTH, IMAGE_GRID, IMAGE_GRID)
            return SimpleNamespace(last_hidden_state=seen.transpose(1, 2).reshape(shape))
        assert rows is not None
        assert self._remembered.padding is not None
        heard, padding = self._remembered.features[rows].float(), self._remembered.padding[rows]
        return SimpleNamespace(last_hidden_state=heard, audio_mel_mask=padding)


def kept_memory(path: Path, remember: Callable[[], Remembered]) -> Remembered:
    """The outputs of a tower for a pool, from the cache file if an earlier run has written it."""
    if not path.is_file():
        found = remember()
        torch.save((found.features, found.padding), path)
    return Remembered(*torch.load(path, mmap=True))


@torch.no_grad()
def remember_pictures(tower: nn.Module, pictures: Pictures) -> Remembered:
    """Outputs of the vision tower, ``[pictures, tokens, channels]`` in bf16."""
    tower.eval()
    parts = [see(tower, pictures.batch(rows)[0]).bfloat16() for rows in torch.arange(len(pictures)).split(64)]
    return Remembered(torch.cat(parts))


@torch.no_grad()
def remember_sounds(tower: nn.Module, sounds: Sounds) -> Remembered:
    """Outputs of the audio tower, ``[sounds, tokens, width]``, and their padding mask."""
    tower.eval()
    parts = [hear(tower, *sounds.batch(rows)) for rows in torch.arange(len(sounds)).split(64)]
    return Remembered(torch.cat([part for part, _ in parts]), torch.cat([padding for _, padding in parts]))


@torch.no_grad()
def tune_in(embedder: Any, remembered: Remembered, heads: Tensor) -> None:
    """Initialise the projection of an embedder with the weights of the tower's heads.

    The mean of all soft tokens is large and carries no information: it is removed from the projection. The
    first rows of the projection become the rows of the heads, so each class has its own dimension. The other
    rows stay random, with half their size.

    Args:
        embedder: untrained ``Gemma3nMultimodalEmbedder``; its projection is ``[hidden, channels]``.
        remembered: outputs of the tower.
        heads: weights of the linear heads, ``[classes, channels]``.
    """
    features = remembered.features[:256].flatten(0, 1).float()
    if remembered.padding is not None:
        features = features[~remembered.padding[:256].flatten()]
    features = features / features.pow(2).mean(-1, keepdim=True).sqrt()
    common = features.mean(0) / features.mean(0).norm()
    projection = embedder.embedding_projection.weight
    projection[: len(heads)] = heads
    projection -= (projection @ common)[:, None] * common
    projection /= (features @ projection.T).std(0)[:, None]
    projection[len(heads) :] *= 0.5


@dataclass(frozen=True)
class Teacher:
    """Generates the lessons of each step.

    Args:
        encoder: encodes the lessons.
        pictures: pool of images.
        sounds: pool of sounds.
        seed: of the lessons.
    """

    encoder: PromptEncoder
    pictures: Pictures
    sounds: Sounds
    seed: int

    def lessons(self, course: Course, number: int) -> dict[str, list[Lesson]]:
        """The lessons of a step, by kind. They depend on the seed and the number of the step only."""
        rng = random.Random(f"{self.seed}-{number}")
        makers: dict[str, Callable[[], Lesson]] = {
            "picture": lambda: picture_lesson(rng, self.pictures.scenes),
            "colour": lambda: colour_lesson(rng, self.pictures.scenes),
            "several": lambda: several_lesson(rng, self.pictures.scenes),
            "look": lambda: look_lesson(rng, self.pictures.scenes),
            "chat": lambda: chat_lesson(rng),
            "sound": lambda: sound_lesson(rng, self.sounds.heard),
        }
        return {kind: [makers[kind]() for _ in range(share)] for kind, share in course.shares.items()}

    def batches(self, course: Course, number: int, team: Team) -> list[Batch]:
        """The lessons of a step for one process, as batches of similar length."""
        lessons = [one for some in self.lessons(course, number).values() for one in team.share(some)]
        return list(in_batches(self.encoder, lessons))


def train_text(
    model: Any,
    teacher: Teacher,
    course: Course,
    team: Team,
    progress: Progress,
    path: Path,
    check: Callable[[Course, int], None],
) -> None:
    """Train the text model and the embedders; ``Memory`` must have replaced the towers.

    Args:
        model: ``Gemma3nForConditionalGeneration``, with the same weights in every process.
        teacher: generates the lessons.
        course: selects the lessons.
        team: the processes that train together.
        progress: has the number of steps; reports the losses in the process of rank 0.
        path: checkpoint of the training. If the file exists, the training resumes from it.
        check: called by rank 0 after each checkpoint with the course and the number of steps.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(_groups(parameters), lr=course.rate, betas=(0.9, 0.98))
    rates = schedule(optimizer, progress.steps, warm=min(200, progress.steps // 4))
    kept = {"model": model, "optimizer": optimizer, "rates": rates}
    model.train()
    for step in range(_go_on(path, kept), progress.steps):
        optimizer.zero_grad(set_to_none=True)
        loss = _learn(model, teacher.batches(course, step, team), team)
        team.add_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rates.step()
        if not team.leads:
            continue
        progress.step(step, {"loss": loss})
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == progress.steps:
            torch.save({"done": step + 1, **{name: one.state_dict() for name, one in kept.items()}}, path)
            check(course, step + 1)


def _learn(model: Any, batches: Sequence[Batch], team: Team) -> float:
    """Add the gradients of the batches. Returns the mean loss over the tokens of all processes."""
    learnt = team.total(sum(batch.learnt for batch in batches))
    total = 0.0
    for batch in batches:
        loss = loss_of(model, batch) * (batch.learnt / learnt)
        loss.backward()
        total += loss.item()
    return team.total(total)


def _go_on(path: Path, kept: dict[str, Any]) -> int:
    """Load the checkpoint of an earlier run. Returns its number of steps; 0 if there is none."""
    if not path.is_file():
        return 0
    found = torch.load(path)
    for name, one in kept.items():
        one.load_state_dict(found[name])
    return int(found["done"])


def _groups(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Parameter groups: weight decay for matrices, none for norms and scales."""
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def loss_of(model: Any, batch: Batch) -> Tensor:
    """Mean loss over the tokens with a label."""
    loss: Tensor = model(**inputs_of(batch), labels=batch.labels).loss
    return loss


def inputs_of(batch: Batch) -> dict[str, Any]:
    """Inputs of the model. Images and sounds are row numbers; see ``Memory``."""
    inputs = {"input_ids": batch.token_ids, "attention_mask": batch.attention_mask, "use_cache": False}
    if len(batch.pictures):
        inputs["pixel_values"] = batch.pictures
    if len(batch.sounds):
        inputs["input_features"] = batch.sounds
        inputs["input_features_mask"] = torch.ones(len(batch.sounds), 1, dtype=torch.bool)
    return inputs


@torch.no_grad()
def exact(model: Any, teacher: Teacher, course: Course, steps: int) -> dict[str, float]:
    """Exact match by kind: the share of lessons of which the model predicts every token of every turn.

    Each token is predicted from the expected tokens before it. If all are correct, greedy decoding generates
    the same text.
    """
    model.eval()
    right: dict[str, list[Tensor]] = {}
    for number in range(steps):
        for kind, lessons in teacher.lessons(course, number).items():
            for batch in in_batches(teacher.encoder, lessons):
                wanted = batch.labels[:, 1:]
                said = model(**inputs_of(batch)).logits[:, :-1].argmax(-1)
                right.setdefault(kind, []).append(((said == wanted) | (wanted == IGNORED)).all(1))
    model.train()
    return {kind: torch.cat(parts).float().mean().item() for kind, parts in right.items()}
