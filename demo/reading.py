"""The text model learns to talk about what the towers, done learning, have seen and heard.

The towers are not run here: what they make of each picture and sound of the pool is computed once, and the
model's towers are replaced by a look-up of it. So a step costs what a text model of this size costs.
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
    """A part of the training, with a learning rate of its own that rises and falls.

    Args:
        name: of its files.
        steps: it has.
        rate: of learning, at its highest.
        shares: lessons of each kind in a step; even numbers, for two processes share them.
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
"""What a description lists in its order is learnt first. Then to find in the picture what a question names: a
kind of question that is asked alone is learnt in a hundred steps, and among others in none (docs/log.md)."""


@dataclass(frozen=True)
class Remembered:
    """What a tower made of a pool."""

    features: Tensor
    padding: Tensor | None = None


class Memory(nn.Module):
    """Takes a tower's place: is given row numbers and answers with what the tower once said of them."""

    def __init__(self, remembered: Remembered) -> None:
        super().__init__()
        self._remembered = remembered

    def forward(
        self, rows: Tensor | None = None, *_: Tensor, pixel_values: Tensor | None = None, **__: Any
    ) -> Any:
        """As ``Gemma3nModel`` reads the answers of either tower."""
        if pixel_values is not None:
            seen = self._remembered.features[pixel_values].float()  # [batch, tokens, channels]
            shape = (len(seen), VISION_WIDTH, IMAGE_GRID, IMAGE_GRID)
            return SimpleNamespace(last_hidden_state=seen.transpose(1, 2).reshape(shape))
        assert rows is not None
        assert self._remembered.padding is not None
        heard, padding = self._remembered.features[rows].float(), self._remembered.padding[rows]
        return SimpleNamespace(last_hidden_state=heard, audio_mel_mask=padding)


def kept_memory(path: Path, remember: Callable[[], Remembered]) -> Remembered:
    """What the towers made of a pool, from the file where an earlier run left it if there is one."""
    if not path.is_file():
        found = remember()
        torch.save((found.features, found.padding), path)
    return Remembered(*torch.load(path, mmap=True))


@torch.no_grad()
def remember_pictures(tower: nn.Module, pictures: Pictures) -> Remembered:
    """``[pictures, tokens, channels]`` in bf16."""
    tower.eval()
    parts = [see(tower, pictures.batch(rows)[0]).bfloat16() for rows in torch.arange(len(pictures)).split(64)]
    return Remembered(torch.cat(parts))


@torch.no_grad()
def remember_sounds(tower: nn.Module, sounds: Sounds) -> Remembered:
    """``[sounds, tokens, width]``, and which tokens stand for padding."""
    tower.eval()
    parts = [hear(tower, *sounds.batch(rows)) for rows in torch.arange(len(sounds)).split(64)]
    return Remembered(torch.cat([part for part, _ in parts]), torch.cat([padding for _, padding in parts]))


@torch.no_grad()
def tune_in(embedder: Any, remembered: Remembered, heads: Tensor) -> None:
    """Let the text model hear at once what the tower's heads could tell.

    What all soft tokens have in common is most of each and says nothing; it is taken out of the projection.
    The first of its rows become the heads' own, so that "red" or "a circle" stand in places of their own; the
    rest stay random, at half their size.

    Args:
        embedder: ``Gemma3nMultimodalEmbedder``, untrained; its projection is ``[hidden, channels]``.
        remembered: what the tower makes of some pictures.
        heads: the weights of linear heads, ``[answers, channels]``.
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
    """Makes the lessons of each step."""

    encoder: PromptEncoder
    pictures: Pictures
    sounds: Sounds
    seed: int

    def lessons(self, course: Course, number: int) -> dict[str, list[Lesson]]:
        """The lessons of a step, by kind; the same step of a course always has the same."""
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
        """A member's lessons of a step as batches, each of lessons of similar length and any kind."""
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
    """Train all but the towers, which must have been replaced by ``Memory``.

    Args:
        model: ``Gemma3nForConditionalGeneration``, the same in every process.
        teacher: makes the lessons.
        course: which of them.
        team: those who learn together.
        progress: knows how many steps there are; its leader's is told each loss.
        path: of a file that is written now and then; what is there already is where it goes on.
        check: called after each time with the course and its steps that are done, by the leader alone.
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
    """Add the gradients of some batches; the mean loss of all tokens of all members."""
    learnt = team.total(sum(batch.learnt for batch in batches))
    total = 0.0
    for batch in batches:
        loss = loss_of(model, batch) * (batch.learnt / learnt)
        loss.backward()
        total += loss.item()
    return team.total(total)


def _go_on(path: Path, kept: dict[str, Any]) -> int:
    """Put everything as an earlier run left it; how many steps that had done."""
    if not path.is_file():
        return 0
    found = torch.load(path)
    for name, one in kept.items():
        one.load_state_dict(found[name])
    return int(found["done"])


def _groups(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Matrices decay, norms and scales do not."""
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def loss_of(model: Any, batch: Batch) -> Tensor:
    """The mean over all tokens that the model is to say."""
    loss: Tensor = model(**inputs_of(batch), labels=batch.labels).loss
    return loss


def inputs_of(batch: Batch) -> dict[str, Any]:
    """What the model is called with; row numbers stand for pictures and sounds, see ``Memory``."""
    inputs = {"input_ids": batch.token_ids, "attention_mask": batch.attention_mask, "use_cache": False}
    if len(batch.pictures):
        inputs["pixel_values"] = batch.pictures
    if len(batch.sounds):
        inputs["input_features"] = batch.sounds
        inputs["input_features_mask"] = torch.ones(len(batch.sounds), 1, dtype=torch.bool)
    return inputs


@torch.no_grad()
def exact(model: Any, teacher: Teacher, course: Course, steps: int) -> dict[str, float]:
    """The part of lessons that the model would answer word for word, all their turns, by kind.

    Every token is the likeliest one after the right ones before it; so greedy decoding says the same.
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
