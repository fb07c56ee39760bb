"""Make gemma3n-nano: ``python -m demo``. Every stage is kept, so a run that was broken off goes on."""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Gemma3nForConditionalGeneration, PreTrainedTokenizerFast

from demo import model as nano
from demo.card import write_card
from demo.hearing import hearing, kept_sounds, train_audio
from demo.plot import plot_losses
from demo.pool import kept_pictures
from demo.progress import Progress
from demo.reading import (
    Memory,
    Remembered,
    Teacher,
    exact,
    remember_pictures,
    remember_sounds,
    train_text,
    tune_in,
)
from demo.sizes import AUDIO_TOKENS, CONTEXT, IMAGE_TOKENS
from demo.towers import sight, train_vision
from gemma_model import tiny
from gemma_model.prompt import PromptEncoder

ROOT = Path(__file__).parent.parent
HEADS = "vision-heads.pt"
HELD_OUT = 1_000_000
"""Added to a seed for what is not learnt from."""


@dataclass(frozen=True)
class Plan:
    """How much is learnt; the defaults take about two hours on two cores.

    Args:
        workshop: folder for what is kept between stages.
        scale: of all steps and pools; small for a try.
    """

    workshop: Path
    seed: int
    scale: float

    def of(self, number: int) -> int:
        """So many, scaled."""
        return max(8, round(number * self.scale))

    @property
    def cores(self) -> int:
        """Processes that draw pictures side by side."""
        return os.cpu_count() or 1


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="Train the bundled demo model.")
    parser.add_argument("--workshop", type=Path, default=ROOT / "build" / "demo")
    parser.add_argument("--output", type=Path, default=ROOT / "models" / "gemma3n-nano")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of every stage; 0.01 is a try")
    arguments = parser.parse_args(argv)
    plan = Plan(arguments.workshop, arguments.seed, arguments.scale)
    plan.workshop.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    make(plan, arguments.output)
    print(f"made {arguments.output} in {(time.monotonic() - started) / 60:.0f} minutes")


def make(plan: Plan, output: Path) -> None:
    """All stages, one after the other."""
    tokenizer = nano.build_tokenizer(plan.seed)
    tokenizer.save_pretrained(plan.workshop / "tokenizer")
    torch.manual_seed(plan.seed)
    model: Any = Gemma3nForConditionalGeneration(nano.build_config(tokenizer))
    towers = model.model.vision_tower, model.model.audio_tower
    _stage(plan, "vision", towers[0], lambda: _see(plan, towers[0]))
    _stage(plan, "audio", towers[1], lambda: _hear(plan, towers[1]))
    _stage(plan, "text", model, lambda: _read(plan, model))
    plot_losses(plan.workshop, output.parent / "losses.png")
    export(model, tokenizer, output)


def _stage(plan: Plan, name: str, module: nn.Module, learn: Callable[[], None]) -> None:
    """What an earlier run has learnt, or else learning it."""
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
    torch.save(heads.cell.weight.detach(), plan.workshop / HEADS)


def _hear(plan: Plan, tower: nn.Module) -> None:
    steps = plan.of(450)
    sounds = kept_sounds(plan.workshop, plan.seed, plan.of(5000), plan.cores)
    heads = train_audio(tower, sounds, plan.seed, Progress("audio", steps, plan.workshop))
    held_out = kept_sounds(plan.workshop, plan.seed + HELD_OUT, plan.of(600), plan.cores)
    print("audio, held out:", _told(hearing(tower, heads, held_out)))


def _read(plan: Plan, model: Any) -> None:
    """Train the text model on what the towers made of new pictures and sounds."""
    towers = model.model.vision_tower, model.model.audio_tower
    # New pictures, for of those that it learnt from the tower says more than of any other.
    teacher = _teacher(plan, (plan.seed + 1, 14_000), (plan.seed, 5000))
    examiner = _teacher(plan, (plan.seed + HELD_OUT, 1000), (plan.seed + HELD_OUT, 600))
    memories = [_remember(towers, each) for each in (teacher, examiner)]
    tune_in(model.model.embed_vision, memories[0][0], torch.load(plan.workshop / HEADS))
    steps = plan.of(1250)

    def check(done: int) -> None:
        _use(model, memories[1])
        print(f"text, held out after {done:,} steps: {_told(exact(model, examiner, 0, 4))}", flush=True)
        _use(model, memories[0])

    _use(model, memories[0])
    progress = Progress("text", steps, plan.workshop, every=50)
    train_text(model, teacher, steps, progress, plan.workshop / "text-unfinished.pt", check)
    model.model.vision_tower, model.model.audio_tower = towers


def _teacher(plan: Plan, pictures: tuple[int, int], sounds: tuple[int, int]) -> Teacher:
    """Lessons about a series of pictures and one of sounds, each by its seed and number."""
    encoder = PromptEncoder(
        plan.workshop / "tokenizer", {"image": IMAGE_TOKENS, "audio": AUDIO_TOKENS}, CONTEXT
    )
    return Teacher(
        encoder,
        kept_pictures(plan.workshop, pictures[0], plan.of(pictures[1]), plan.cores),
        kept_sounds(plan.workshop, sounds[0], plan.of(sounds[1]), plan.cores),
        pictures[0],
    )


def _remember(towers: tuple[nn.Module, nn.Module], teacher: Teacher) -> tuple[Remembered, Remembered]:
    return remember_pictures(towers[0], teacher.pictures), remember_sounds(towers[1], teacher.sounds)


def _use(model: Any, memory: tuple[Remembered, Remembered]) -> None:
    model.model.vision_tower, model.model.audio_tower = Memory(memory[0]), Memory(memory[1])


def _told(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {figure:.1%}" for name, figure in figures.items())


def export(model: Any, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Write the checkpoint, in bf16; its card tells what the evaluation found, once that has run."""
    config = nano.build_config(tokenizer)
    model.config.vision_config.model_args = (
        config.vision_config.model_args
    )  # timm leaves its marks on the other
    model.generation_config = tiny.generation_config(tokenizer)
    tiny.write(output, model.eval().to(torch.bfloat16), nano.build_processor(tokenizer))
    write_card(output)


if __name__ == "__main__":
    main()
