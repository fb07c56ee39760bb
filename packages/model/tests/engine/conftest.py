import hashlib
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gemma_model.engine.engine import NativeEngine
from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.model_loader import LoadedRunner
from gemma_model.engine.model_runner import ModelRunner
from gemma_model.engine.prefix_cache import PrefixCache
from gemma_model.engine.scheduler import Scheduler
from gemma_model.engine.sequence import MediaKey, SeqId
from gemma_model.engine.step_plan import StepPlan
from gemma_model.engine.step_result import StepResult
from gemma_model.engine_types import (
    EngineOutput,
    EngineRequest,
    Media,
    MediaSpan,
    PositionLogprobs,
    TokenizedPrompt,
)
from gemma_model.layers.kv_block_pool import KVBlockPool
from gemma_model.layers.kv_cache import KVCache
from gemma_model.sampling.sampling_state import SamplingState
from gemma_model.settings import Settings
from gemma_model.testing import tiny_checkpoint, tiny_tokenizer

from .counting import native_engine

IMAGE, SOUND = (
    tiny_tokenizer.TEXT_VOCAB + 1,
    tiny_tokenizer.TEXT_VOCAB + tiny_tokenizer.MM_VOCAB + 1,
)  # ids of soft tokens
LENGTH = 512


class Answer:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.steps: list[EngineOutput] = []

    def __call__(self, step: EngineOutput) -> None:
        assert not any(before.last and before.choice == step.choice for before in self.steps)
        self.steps.append(step)

    @property
    def tokens(self) -> list[int]:
        """Of choice 0."""
        return self.choice(0)

    @property
    def end(self) -> EngineOutput | None:
        """Of choice 0."""
        return next((step for step in self.steps if step.last and step.choice == 0), None)

    def choice(self, index: int) -> list[int]:
        return [token for step in self.steps if step.choice == index for token in step.token_ids]

    def scores(self, index: int = 0) -> list[PositionLogprobs]:
        return [score for step in self.steps if step.choice == index for score in step.logprobs]

    @property
    def prompt_logprobs(self) -> list[PositionLogprobs]:
        return [score for step in self.steps for score in step.prompt_logprobs]


@dataclass
class Recorder:
    """A runner that notes the plans it is given."""

    runner: ModelRunner
    plans: list[StepPlan] = field(default_factory=list)

    @property
    def encoded(self) -> Container[MediaKey]:
        return self.runner.encoded

    def retain(self, needed: Collection[MediaKey]) -> None:
        self.runner.retain(needed)

    def run(self, plan: StepPlan, states: Mapping[SeqId, SamplingState]) -> StepResult:
        self.plans.append(plan)
        return self.runner.run(plan, states)

    def tokens_run(self, number: int) -> int:
        """TokenizedPrompt tokens of a request that were not reused."""
        return sum(p.stop - p.start for plan in self.plans for p in plan.prefills if p.seq_id[0] == number)


@dataclass
class Native:
    """The engine without its thread."""

    engine: NativeEngine
    recorder: Recorder
    slots: KVSlots

    def run(self) -> None:
        while self.engine.step():
            pass

    def listened(self, *requests: EngineRequest) -> list[Answer]:
        answers = [Answer() for _ in requests]
        for engine_request, answer in zip(requests, answers, strict=True):
            self.engine.submit(engine_request, answer)
        self.run()
        return answers

    def answers(self, requests: Sequence[EngineRequest]) -> list[list[int]]:
        return [answer.tokens for answer in self.listened(*requests)]


@dataclass(frozen=True)
class Checkpoint:
    """Weights that are loaded once, for engines with slots of their own."""

    loaded: LoadedRunner
    oracle: Any
    folder: Path

    def native(self, slots: int = 4, chunk: int = 16, blocks: int = 4096, block_tokens: int = 1) -> Native:
        cache, of = (
            KVCache(self.loaded.model.cache_spec, slots, LENGTH, extra_columns=chunk),
            self.loaded.runner,
        )
        pool = KVBlockPool(cache, blocks, block_tokens)
        recorder = Recorder(ModelRunner(of._decoder, cache, pool, of._media_encoder))
        free, prefix_cache = KVSlots(slots), PrefixCache(blocks, cache.ring, block_tokens)
        scheduler = Scheduler(free, prefix_cache, 10_000, chunk)
        return Native(native_engine(recorder, scheduler, LENGTH), recorder, free)

    def greedy(self, prompts: Sequence[TokenizedPrompt], new: int) -> list[list[int]]:
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
    def text(length: int, seed: int) -> TokenizedPrompt:
        ids = np.random.default_rng(seed).integers(5, tiny_tokenizer.TEXT_VOCAB, length)
        return TokenizedPrompt(tuple(ids.tolist()))

    @staticmethod
    def picture(seed: int) -> Media:
        pixels = np.random.default_rng(seed).random(
            (3, tiny_checkpoint.IMAGE_SIDE, tiny_checkpoint.IMAGE_SIDE), dtype=np.float32
        )
        return Media("image", hashlib.sha256(pixels.tobytes()).digest(), pixels)

    def with_picture(self, length: int, seed: int, media: Media | None = None) -> TokenizedPrompt:
        """Text with a picture in it, ``length`` tokens in all."""
        ids, start = list(self.text(length, seed).token_ids), 4
        ids[start : start + tiny_checkpoint.IMAGE_TOKENS] = [IMAGE] * tiny_checkpoint.IMAGE_TOKENS
        return TokenizedPrompt(
            tuple(ids), (MediaSpan(start, tiny_checkpoint.IMAGE_TOKENS, media or self.picture(seed)),)
        )

    def with_sound(self, length: int, seed: int, frames: int) -> tuple[TokenizedPrompt, torch.Tensor]:
        """Text with a sound in it, ``length`` tokens in all, and what is to be heard."""
        log_mel = np.random.default_rng(seed).standard_normal((frames, 128), dtype=np.float32)
        ids = list(self.text(length, seed).token_ids)
        ids[2 : 2 + tiny_checkpoint.AUDIO_TOKENS] = [SOUND] * tiny_checkpoint.AUDIO_TOKENS
        span = MediaSpan(2, tiny_checkpoint.AUDIO_TOKENS, Media("audio", log_mel.tobytes()[:32], log_mel))
        return TokenizedPrompt(tuple(ids), (span,)), torch.from_numpy(log_mel)

    @staticmethod
    def longer(prompt: TokenizedPrompt, *more: int) -> TokenizedPrompt:
        return TokenizedPrompt((*prompt.token_ids, *more), prompt.spans)


@pytest.fixture(scope="session")
def checkpoints(
    folder_of: Callable[[str], Path], oracle_of: Callable[[str], Any]
) -> Callable[[str], Checkpoint]:
    torch.set_num_threads(1)
    made: dict[str, Checkpoint] = {}

    def get(shape: str) -> Checkpoint:
        if shape not in made:
            oracle, folder = oracle_of(shape), folder_of(shape)
            oracle.generation_config.update(eos_token_id=None, top_k=None, top_p=None, do_sample=False)
            settings = Settings(device="cpu", max_num_seqs=1, max_model_len=LENGTH)
            made[shape] = Checkpoint(LoadedRunner(folder, settings), oracle, folder)
        return made[shape]

    return get


@pytest.fixture
def checkpoint(checkpoints: Callable[[str], Checkpoint]) -> Checkpoint:
    return checkpoints("quick")


@pytest.fixture(params=["as published", "nothing shared"])
def each_checkpoint(checkpoints: Callable[[str], Checkpoint], request: pytest.FixtureRequest) -> Checkpoint:
    return checkpoints(request.param)


@pytest.fixture(params=["as published", "nothing shared", "gemma 3", "gemma 3, odd sizes"])
def each_family(checkpoints: Callable[[str], Checkpoint], request: pytest.FixtureRequest) -> Checkpoint:
    return checkpoints(request.param)
