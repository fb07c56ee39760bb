"""Trains gemma3n-nano in stages. The result of each stage is cached, so an interrupted run can resume."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from demo import model as nano
from demo.card import write_card
from demo.hearing import hearing, kept_sounds, train_audio
from demo.norms import use_quick_norms
from demo.plot import plot_losses
from demo.pool import kept_pictures
from demo.progress import Progress
from demo.reading import (
    COURSES,
    Course,
    Memory,
    Remembered,
    Teacher,
    exact,
    kept_memory,
    remember_pictures,
    remember_sounds,
    train_text,
    tune_in,
)
from demo.sizes import AUDIO_TOKENS, CONTEXT, IMAGE_TOKENS
from demo.together import Team, together
from demo.towers import sight, train_vision
from gemma_model.prompt_encoder import PromptEncoder
from gemma_model.testing import tiny_checkpoint

HEADS = {"picture": "vision-heads.pt", "sound": "audio-heads.pt"}
HELD_OUT = 1_000_000
"""Added to a seed for held-out data."""


@dataclass(frozen=True)
class Plan:
    """The size of the training; the default scale takes about two hours on two cores.

    Args:
        workshop: folder for the results of the stages.
        seed: of all data and weights.
        scale: factor for the number of steps and the size of the pools; small for a test.
    """

    workshop: Path
    seed: int
    scale: float

    def of(self, number: int) -> int:
        """A number of steps or rows, scaled; at least 8."""
        return max(8, round(number * self.scale))

    @property
    def cores(self) -> int:
        """Number of parallel processes."""
        return os.cpu_count() or 1


def make(plan: Plan, output: Path) -> None:
    """Run all stages and export the checkpoint."""
    tokenizer = nano.build_tokenizer(plan.seed)
    tokenizer.save_pretrained(plan.workshop / "tokenizer")
    torch.manual_seed(plan.seed)
    model = nano.build_model(tokenizer)
    towers = model.model.vision_tower, model.model.audio_tower
    _stage(plan, "vision", towers[0], lambda: _see(plan, towers[0]))
    _stage(plan, "audio", towers[1], lambda: _hear(plan, towers[1]))
    _stage(plan, "text", model, lambda: _read(plan, model))
    export(model, tokenizer, output)
    plot_losses(plan.workshop, output / "losses.png")


def _stage(plan: Plan, name: str, module: nn.Module, learn: Callable[[], None]) -> None:
    """Load the weights of a stage from an earlier run; otherwise train and save them."""
    path = plan.workshop / f"{name}.pt"
    if path.is_file():
        print(f"{name}: learnt before, {path}")
        module.load_state_dict(torch.load(path))
        return
    learn()
    torch.save(module.state_dict(), path)


def _see(plan: Plan, tower: nn.Module) -> None:
    steps = plan.of(2600)
    pictures = kept_pictures(plan.workshop, plan.seed, plan.of(32_000), plan.cores)
    heads = train_vision(tower, pictures, plan.seed, Progress("vision", steps, plan.workshop))
    held_out = kept_pictures(plan.workshop, plan.seed + HELD_OUT, plan.of(1000), plan.cores)
    print("vision, held out:", _told(sight(tower, heads, held_out)))
    torch.save(heads.cell.weight.detach(), plan.workshop / HEADS["picture"])


def _hear(plan: Plan, tower: nn.Module) -> None:
    steps = plan.of(600)
    sounds = kept_sounds(plan.workshop, plan.seed, plan.of(5000), plan.cores)
    heads = train_audio(tower, sounds, plan.seed, Progress("audio", steps, plan.workshop))
    held_out = kept_sounds(plan.workshop, plan.seed + HELD_OUT, plan.of(600), plan.cores)
    print("audio, held out:", _told(hearing(tower, heads, held_out)))
    torch.save(heads.token.weight.detach(), plan.workshop / HEADS["sound"])


def _read(plan: Plan, model: Any) -> None:
    """Train the text model on the towers' outputs for new images and sounds, one process for each core."""
    for teacher in _teachers(plan):
        _memory(plan, teacher, model)
    together(_read_along, plan.cores, plan)
    learnt = torch.load(_unfinished(plan, COURSES[-1]))["model"]
    model.load_state_dict({**model.state_dict(), **learnt})


def _read_along(team: Team, plan: Plan) -> None:
    """The work of one process. The processes share the lessons of each step and have the same weights."""
    use_quick_norms()
    torch.manual_seed(plan.seed)
    model = nano.build_model(PreTrainedTokenizerFast.from_pretrained(plan.workshop / "tokenizer"))
    teacher, examiner = _teachers(plan)
    memories = [_memory(plan, each) for each in (teacher, examiner)]
    for embedder, remembered, heads in zip(
        (model.model.embed_vision, model.model.embed_audio), memories[0], HEADS.values(), strict=True
    ):
        tune_in(embedder, remembered, torch.load(plan.workshop / heads))

    def check(course: Course, done: int) -> None:
        _use(model, memories[1])
        figures = exact(model, examiner, course, 4)
        print(f"{course.name}, held out after {done:,} steps: {_told(figures)}", flush=True)
        _use(model, memories[0])

    for course in COURSES:
        _use(model, memories[0])
        progress = Progress(course.name, plan.of(course.steps), plan.workshop, every=50)
        train_text(model, teacher, course, team, progress, _unfinished(plan, course), check)


def _unfinished(plan: Plan, course: Course) -> Path:
    """Checkpoint of a course."""
    return plan.workshop / f"{course.name}-unfinished.pt"


def _teachers(plan: Plan) -> tuple[Teacher, Teacher]:
    """One for training and one for held-out data.

    The first uses other images than the training of the tower, on which the tower is more accurate.
    """
    return (
        _teacher(plan, (plan.seed + 1, 14_000), (plan.seed, 5000)),
        _teacher(plan, (plan.seed + HELD_OUT, 1000), (plan.seed + HELD_OUT, 600)),
    )


def _teacher(plan: Plan, pictures: tuple[int, int], sounds: tuple[int, int]) -> Teacher:
    """A teacher for a series of images and a series of sounds, each by its seed and number."""
    encoder = PromptEncoder(
        plan.workshop / "tokenizer", {"image": IMAGE_TOKENS, "audio": AUDIO_TOKENS}, CONTEXT
    )
    return Teacher(
        encoder,
        kept_pictures(plan.workshop, pictures[0], plan.of(pictures[1]), plan.cores),
        kept_sounds(plan.workshop, sounds[0], plan.of(sounds[1]), plan.cores),
        pictures[0],
    )


def _memory(plan: Plan, teacher: Teacher, model: Any = None) -> tuple[Remembered, Remembered]:
    """The towers' outputs for the pools of a teacher; without a model, from the cache."""
    seen, heard = (plan.workshop / f"{what}-{teacher.seed}.pt" for what in ("seen", "heard"))
    return (
        kept_memory(seen, lambda: remember_pictures(model.model.vision_tower, teacher.pictures)),
        kept_memory(heard, lambda: remember_sounds(model.model.audio_tower, teacher.sounds)),
    )


def _use(model: Any, memory: tuple[Remembered, Remembered]) -> None:
    model.model.vision_tower, model.model.audio_tower = Memory(memory[0]), Memory(memory[1])


def _told(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {figure:.1%}" for name, figure in figures.items())


def export(model: Any, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Write the checkpoint in bf16, with a model card that has no evaluation yet."""
    config = nano.build_config(tokenizer)
    model.config.vision_config.model_args = (
        config.vision_config.model_args
    )  # timm leaves its marks on the other
    model.generation_config = tiny_checkpoint.generation_config(tokenizer)
    tiny_checkpoint.write(output, model.eval().to(torch.bfloat16), nano.build_processor(tokenizer))
    write_card(output)
