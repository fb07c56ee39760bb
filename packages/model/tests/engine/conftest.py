import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Gemma3nForConditionalGeneration

from gemma_model import tiny
from gemma_model.engine.engine import Loop
from gemma_model.engine.runner import Loaded, Runner
from gemma_model.engine.scheduler import Outcome, Plan, Scheduler
from gemma_model.engine.slots import Slots
from gemma_model.protocol import Generation, Media, MediaSpan, Prompt, Step
from gemma_model.settings import Settings

IMAGE, SOUND = tiny.TEXT_VOCAB + 1, tiny.TEXT_VOCAB + tiny.MM_VOCAB + 1  # ids of soft tokens
LENGTH = 512
QUICK = tiny.Shape(
    num_hidden_layers=6, num_kv_shared_layers=1, activation_sparsity_pattern=(0.95, 0.95, *(0.0,) * 4)
)
SHAPES = {
    "as published": tiny.Shape(),
    "nothing shared": tiny.Shape(
        num_hidden_layers=5,
        num_kv_shared_layers=0,
        altup_num_inputs=1,
        sliding_window=8,
        activation_sparsity_pattern=(0.0,) * 5,
    ),
}


class Answer:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.end: Step | None = None

    def __call__(self, step: Step) -> None:
        assert self.end is None, "nothing follows the last step"
        self.tokens += step.token_ids
        if step.last:
            self.end = step


@dataclass
class Recorder:
    """A runner that notes the plans it is given."""

    runner: Runner
    plans: list[Plan] = field(default_factory=list)

    def run(self, plan: Plan, generations: Mapping[int, Generation]) -> Outcome:
        self.plans.append(plan)
        return self.runner.run(plan, generations)

    def tokens_run(self, number: int) -> int:
        """Prompt tokens of a request that were not reused."""
        return sum(p.stop - p.start for plan in self.plans for p in plan.prefills if p.number == number)


@dataclass
class Native:
    """The engine without its thread."""

    loop: Loop
    recorder: Recorder
    slots: Slots

    def run(self) -> None:
        while self.loop.step():
            pass

    def answers(self, generations: Sequence[Generation]) -> list[list[int]]:
        answers = [Answer() for _ in generations]
        for generation, answer in zip(generations, answers, strict=True):
            self.loop.submit(generation, answer)
        self.run()
        return [answer.tokens for answer in answers]


@dataclass(frozen=True)
class Checkpoint:
    folder: Path
    oracle: Any

    def native(self, slots: int = 4, chunk: int = 16, rewind: int = 0) -> Native:
        settings = Settings(
            device="cpu", max_num_seqs=slots, max_model_len=LENGTH, prefill_chunk=chunk, rewind=rewind
        )
        loaded = Loaded(self.folder, settings)
        free, recorder = Slots(slots, loaded.window, loaded.ring), Recorder(loaded.runner)
        return Native(Loop(recorder, Scheduler(free, 10_000, chunk), LENGTH), recorder, free)

    def greedy(self, prompts: Sequence[Prompt], new: int) -> list[list[int]]:
        """What transformers' own generate says to prompts of one length."""
        ids = torch.tensor([prompt.token_ids for prompt in prompts])
        pictures = [torch.from_numpy(s.media.features) for prompt in prompts for s in prompt.spans]
        pixels = {"pixel_values": torch.stack(pictures)} if pictures else {}
        mask = torch.ones_like(ids)
        said = self.oracle.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False, **pixels
        )
        answers: list[list[int]] = said[:, ids.shape[1] :].tolist()
        return answers

    @staticmethod
    def answer() -> Answer:
        return Answer()

    @staticmethod
    def text(length: int, seed: int) -> Prompt:
        ids = np.random.default_rng(seed).integers(5, tiny.TEXT_VOCAB, length)
        return Prompt(tuple(ids.tolist()))

    @staticmethod
    def picture(seed: int) -> Media:
        pixels = np.random.default_rng(seed).random((3, tiny.IMAGE_SIDE, tiny.IMAGE_SIDE), dtype=np.float32)
        return Media("image", hashlib.sha256(pixels.tobytes()).digest(), pixels)

    def with_picture(self, length: int, seed: int, media: Media | None = None) -> Prompt:
        """Text with a picture in it, ``length`` tokens in all."""
        ids, start = list(self.text(length, seed).token_ids), 4
        ids[start : start + tiny.IMAGE_TOKENS] = [IMAGE] * tiny.IMAGE_TOKENS
        return Prompt(tuple(ids), (MediaSpan(start, tiny.IMAGE_TOKENS, media or self.picture(seed)),))

    def with_sound(self, length: int, seed: int, frames: int) -> tuple[Prompt, torch.Tensor]:
        """Text with a sound in it, ``length`` tokens in all, and what is to be heard."""
        log_mel = np.random.default_rng(seed).standard_normal((frames, 128), dtype=np.float32)
        ids = list(self.text(length, seed).token_ids)
        ids[2 : 2 + tiny.AUDIO_TOKENS] = [SOUND] * tiny.AUDIO_TOKENS
        span = MediaSpan(2, tiny.AUDIO_TOKENS, Media("audio", log_mel.tobytes()[:32], log_mel))
        return Prompt(tuple(ids), (span,)), torch.from_numpy(log_mel)

    @staticmethod
    def longer(prompt: Prompt, *more: int) -> Prompt:
        return Prompt((*prompt.token_ids, *more), prompt.spans)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    torch.set_num_threads(1)
    made: dict[str, Checkpoint] = {}

    def get(name: str) -> Checkpoint:
        if name not in made:
            folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
            tiny.make(folder, seed=5, shape=SHAPES.get(name, QUICK))
            oracle = Gemma3nForConditionalGeneration.from_pretrained(folder).eval()
            oracle.generation_config.update(eos_token_id=None, top_k=None, top_p=None, do_sample=False)
            made[name] = Checkpoint(folder, oracle)
        return made[name]

    return get


@pytest.fixture
def checkpoint(checkpoints: Callable[[str], Checkpoint]) -> Checkpoint:
    return checkpoints("quick")


@pytest.fixture(params=SHAPES)
def each_checkpoint(checkpoints: Callable[[str], Checkpoint], request: pytest.FixtureRequest) -> Checkpoint:
    return checkpoints(request.param)
