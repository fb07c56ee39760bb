"""The reference engine: plain ``transformers`` generate behind the Engine protocol.

It is the numeric oracle for the native engine, and the way to serve an architecture that one does not know.
A thread runs each generation, one choice after the other; the rest wait in line.
"""

import math
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForImageTextToText, GenerationConfig, RepetitionPenaltyLogitsProcessor
from transformers.utils.logging import disable_progress_bar

from gemma_model.device import describe_device, pick_device
from gemma_model.protocol import (
    LEAST_LOGPROB,
    EngineInfo,
    Generation,
    Listener,
    Observation,
    Sampling,
    Scores,
    Step,
    StopCause,
)
from gemma_model.settings import Settings
from gemma_wire import InvalidRequest, Overloaded

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
MAX_SCORED = 1024
"""Tokens of a prompt whose logits exist at once: over a vocabulary of 262,400 each takes 1 MB."""


@dataclass
class _Job:
    generation: Generation
    listen: Listener
    cancelled: set[int] = field(default_factory=set)  # choices


class ReferenceEngine:
    """An ``Engine`` over ``transformers``.

    Args:
        folder: of the checkpoint.
        settings: device, dtype, and how many run and wait.

    Raises:
        InvalidRequest: it was asked to leave the towers out.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        if settings.towers == "none":
            raise InvalidRequest("the reference engine cannot leave them out", "towers")
        disable_progress_bar()  # in a log file it is one long line
        self._device = pick_device(settings.device)
        dtype = DTYPES.get(settings.dtype, "auto")
        self._model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
        self._model.eval().to(self._device)
        self._model.generation_config = _plain_config(1)  # nothing of the checkpoint's is merged into ours
        self._memory_bytes = sum(p.numel() * p.element_size() for p in self._model.parameters())
        self._max_num_seqs, self._max_queue = settings.max_num_seqs, settings.max_queue
        self._pool = ThreadPoolExecutor(settings.max_num_seqs, thread_name_prefix="generate")
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._jobs: dict[int, _Job] = {}
        self._running: set[int] = set()

    def submit(self, generation: Generation, listen: Listener) -> int:
        """See ``Engine.submit``."""
        if generation.prompt_logprobs is not None and len(generation.prompt.token_ids) > MAX_SCORED:
            message = f"the reference engine tells those of at most {MAX_SCORED} tokens"
            raise InvalidRequest(message, "prompt_logprobs")
        with self._lock:
            if len(self._jobs) - self._max_num_seqs >= self._max_queue:
                raise Overloaded(f"{self._max_queue} requests are waiting already; try again later")
            number = next(self._numbers)
            self._jobs[number] = _Job(generation, listen)
            self._pool.submit(self._run, number)
        return number

    def cancel(self, number: int, choice: int | None = None) -> None:
        """See ``Engine.cancel``."""
        if job := self._jobs.get(number):
            job.cancelled.update(range(job.generation.n) if choice is None else [choice])

    def info(self) -> EngineInfo:
        """See ``Engine.info``."""
        with self._lock:
            running, waiting = len(self._running), len(self._jobs) - len(self._running)
        return EngineInfo(
            name="reference",
            device=describe_device(self._device),
            dtype=str(self._model.dtype).removeprefix("torch."),
            memory_bytes=self._memory_bytes,
            max_num_seqs=self._max_num_seqs,
            running=running,
            waiting=waiting,
        )

    def observations(self) -> list[Observation]:
        """See ``Engine.observations``; this one measures nothing."""
        return []

    def close(self) -> None:
        """See ``Engine.close``."""
        for number in list(self._jobs):
            self.cancel(number)
        self._pool.shutdown(wait=True)

    def _run(self, number: int) -> None:
        job = self._jobs[number]
        with self._lock:
            self._running.add(number)
        *others, last = range(job.generation.n)
        for choice in others:
            job.listen(self._answer(job, choice))
        end = self._answer(job, last)
        with self._lock:
            self._running.discard(number)
            del self._jobs[number]
        job.listen(end)

    def _answer(self, job: _Job, choice: int) -> Step:
        """Run one choice, prompt and all; its last step."""
        try:
            return Step(choice=choice, finish=self._generate(job, choice))
        except Exception as error:
            return Step(choice=choice, error=f"{type(error).__name__}: {error}")

    @torch.inference_mode()
    def _generate(self, job: _Job, choice: int) -> StopCause:
        if choice in job.cancelled:
            return "cancelled"
        generation, stop_ids = job.generation, job.generation.stop_token_ids
        input_ids = torch.tensor([generation.prompt.token_ids], device=self._device)
        inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)} | self._media(
            generation
        )
        sampler = SeededSampler(generation, input_ids.shape[1], choice)
        told = self._prompt_scores(generation, inputs) if choice == 0 else ()
        made = self._model.generate(
            **inputs,
            generation_config=_plain_config(generation.max_tokens),
            logits_processor=[sampler],
            stopping_criteria=[_when(lambda last: choice in job.cancelled or last in stop_ids)],
            streamer=_Streamer(job.listen, sampler, choice, told),
        )
        if choice in job.cancelled:
            return "cancelled"
        return "stop" if int(made[0, -1]) in stop_ids else "length"

    def _media(self, generation: Generation) -> dict[str, torch.Tensor]:
        media = [span.media for span in generation.prompt.spans]
        pixels = [torch.from_numpy(x.features) for x in media if x.modality == "image"]
        sounds = [torch.from_numpy(x.features) for x in media if x.modality == "audio"]
        inputs = {}
        if pixels:
            inputs["pixel_values"] = torch.stack(pixels).to(self._device, self._model.dtype)
        if sounds:
            padded = pad_sequence(sounds, batch_first=True).to(self._device, self._model.dtype)
            heard = pad_sequence([torch.ones(len(x), dtype=torch.bool) for x in sounds], batch_first=True)
            inputs |= {"input_features": padded, "input_features_mask": heard.to(self._device)}
        return inputs

    def _prompt_scores(self, asked: Generation, inputs: Mapping[str, torch.Tensor]) -> tuple[Scores, ...]:
        if (top := asked.prompt_logprobs) is None:
            return ()
        rows = self._model(**inputs).logits[0].float().log_softmax(-1)
        behind = asked.prompt.token_ids[1:]
        return tuple(_scores(row, i, top, with_rank=True) for row, i in zip(rows, behind, strict=False))


class SeededSampler:
    """Samples by itself, as a logits processor, so that each generation has a random stream of its own.

    ``generate`` would draw from torch's one global generator, and neighbours would change each other's
    text. With Gumbel noise added to ``logits / temperature`` the arg max is a sample of the softmax
    (Gumbel 1954), so ``generate`` can stay greedy.
    """

    def __init__(self, generation: Generation, prompt_length: int, choice: int = 0) -> None:
        self._sampling, self._prompt_length = generation.sampling, prompt_length
        self._stop_ids = sorted(generation.stop_token_ids)
        self._no_stop_before = prompt_length + generation.min_tokens
        self._constraint = generation.constraint and generation.constraint.fork()
        self._top, self._told_ids = generation.logprobs, generation.logprob_token_ids
        self._repetition = RepetitionPenaltyLogitsProcessor(self._sampling.repetition_penalty)
        seed = self._sampling.seed if self._sampling.seed is not None else secrets.randbits(63)
        self._random = torch.Generator().manual_seed(seed if choice == 0 else hash((seed, choice)))
        self.scores: tuple[Scores, ...] = ()
        """Of the token that came last, when they were asked for."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Logits ``[1, vocabulary]`` → the same, such that their arg max is the sampled token."""
        answer, raw = input_ids[0, self._prompt_length :], scores.float()
        chosen = self._constrain(self._penalise(raw.clone(), input_ids, answer), answer)
        if self._sampling.temperature != 0:
            noise = torch.empty(chosen.shape).exponential_(generator=self._random).log().neg()
            chosen = _truncate(chosen / self._sampling.temperature, self._sampling) + noise.to(chosen.device)
        if self._top is not None:
            self.scores = (_scores(raw[0].log_softmax(-1), int(chosen.argmax()), self._top, self._told_ids),)
        return chosen

    def _penalise(self, logits: torch.Tensor, input_ids: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        logits = self._repetition(input_ids, logits)
        counts = torch.bincount(answer, minlength=logits.shape[1]).to(logits)
        logits -= self._sampling.frequency_penalty * counts
        logits -= self._sampling.presence_penalty * counts.sign()
        for token_id, bias in self._sampling.logit_bias.items():
            if token_id < logits.shape[1]:
                logits[:, token_id] += bias
        return logits

    def _constrain(self, logits: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
        every = torch.arange(logits.shape[1], device=logits.device)
        allowed = torch.ones_like(every, dtype=torch.bool)
        if self._constraint is not None:
            if len(answer):
                self._constraint.advance(int(answer[-1]))
            words = torch.from_numpy(self._constraint.allowed()).to(logits.device)
            allowed = (words[every // 32] >> (every % 32)) & 1 == 1
        if self._prompt_length + len(answer) < self._no_stop_before:
            longer = allowed & ~torch.isin(every, torch.tensor(self._stop_ids, device=logits.device))
            allowed = longer if longer.any() else allowed
        return logits.masked_fill(~allowed, -torch.inf)


def _scores(
    logprobs: torch.Tensor, token_id: int, top: int, token_ids: Sequence[int] = (), with_rank: bool = False
) -> Scores:
    """Of a token, and of the likeliest in its place or of those that are asked for; ``[vocabulary]``."""
    told = list(token_ids) or logprobs.sort(descending=True, stable=True).indices[:top].tolist()
    pairs = zip(told, logprobs[told].tolist(), strict=True)
    own = float(logprobs[token_id])
    rank = int((logprobs > own).sum()) + 1 if with_rank else None
    return Scores(max(own, LEAST_LOGPROB), tuple((i, max(x, LEAST_LOGPROB)) for i, x in pairs), rank)


def _truncate(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """``[1, vocabulary]``: minus infinity outside the top k, the nucleus, and what min-p leaves.

    The nucleus is Holtzman et al.'s (2020), min-p Nguyen et al.'s (2024).
    """
    ordered, order = logits.sort(descending=True)
    drop = torch.zeros_like(ordered, dtype=torch.bool)
    if sampling.top_k:
        drop[:, sampling.top_k :] = True
    if sampling.top_p < 1:
        kept = ordered.masked_fill(drop, -torch.inf).softmax(-1)
        drop |= kept.cumsum(-1) - kept >= sampling.top_p  # the mass before a token decides on it
    if sampling.min_p:
        drop |= ordered < ordered[:, :1] + math.log(sampling.min_p)
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), -torch.inf)


class _Streamer:
    """Passes new tokens on; what ``generate`` puts first is the prompt."""

    def __init__(
        self, listen: Listener, sampler: SeededSampler, choice: int, prompt_scores: tuple[Scores, ...]
    ) -> None:
        self._listen, self._sampler, self._choice = listen, sampler, choice
        self._prompt_scores = prompt_scores
        self._seen_prompt = False

    def put(self, value: torch.Tensor) -> None:
        if self._seen_prompt:
            ids, scores = tuple(value.reshape(-1).tolist()), self._sampler.scores
            self._listen(
                Step(token_ids=ids, choice=self._choice, scores=scores, prompt_scores=self._prompt_scores)
            )
            self._prompt_scores = ()
        self._seen_prompt = True

    def end(self) -> None:
        """The last step says more than this; see ``_run``."""


def _when(test: Callable[[int], bool]) -> Callable[..., torch.Tensor]:
    """A stopping criterion; ``test`` sees the newest token."""

    def criterion(input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:  # noqa: ARG001
        return torch.tensor([test(int(input_ids[0, -1]))], device=input_ids.device)

    return criterion


def _plain_config(max_tokens: int) -> GenerationConfig:
    """Greedy, and nothing of the checkpoint's own: sampling and stopping are ours."""
    return GenerationConfig(max_new_tokens=max_tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
