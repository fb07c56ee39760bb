"""The reference engine: plain ``transformers`` generate behind the Engine protocol.

It is the numeric oracle for the native engine, and the way to serve an architecture that one does not know.
A thread runs each generation; the rest wait in line.
"""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from gemma_model.nn.device import describe, pick
from gemma_model.protocol import EngineInfo, Generation, Listener, Sampling, Step, StopCause
from gemma_model.settings import Settings
from gemma_wire import Overloaded

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass
class _Job:
    generation: Generation
    listen: Listener
    cancelled: threading.Event = field(default_factory=threading.Event)


class ReferenceEngine:
    """An ``Engine`` over ``transformers``.

    Args:
        folder: of the checkpoint.
        settings: device, dtype, and how many run and wait.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        disable_progress_bar()  # in a log file it is one long line
        self._device = pick(settings.device)
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
        with self._lock:
            if len(self._jobs) - self._max_num_seqs >= self._max_queue:
                raise Overloaded(f"{self._max_queue} requests are waiting already; try again later")
            number = next(self._numbers)
            self._jobs[number] = _Job(generation, listen)
            self._pool.submit(self._run, number)
        return number

    def cancel(self, number: int) -> None:
        """See ``Engine.cancel``."""
        if job := self._jobs.get(number):
            job.cancelled.set()

    def info(self) -> EngineInfo:
        """See ``Engine.info``."""
        with self._lock:
            running, waiting = len(self._running), len(self._jobs) - len(self._running)
        return EngineInfo(
            name="reference",
            device=describe(self._device),
            dtype=str(self._model.dtype).removeprefix("torch."),
            memory_bytes=self._memory_bytes,
            max_num_seqs=self._max_num_seqs,
            running=running,
            waiting=waiting,
        )

    def close(self) -> None:
        """See ``Engine.close``."""
        for number in list(self._jobs):
            self.cancel(number)
        self._pool.shutdown(wait=True)

    def _run(self, number: int) -> None:
        job = self._jobs[number]
        with self._lock:
            self._running.add(number)
        try:
            last = Step(finish="cancelled" if job.cancelled.is_set() else self._generate(job))
        except Exception as error:
            last = Step(error=f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._running.discard(number)
                del self._jobs[number]
        job.listen(last)

    @torch.inference_mode()
    def _generate(self, job: _Job) -> StopCause:
        prompt, stop_ids = job.generation.prompt, job.generation.stop_token_ids
        input_ids = torch.tensor([prompt.token_ids], device=self._device)
        made = self._model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            **self._pictures(job.generation),
            generation_config=_plain_config(job.generation.max_tokens),
            logits_processor=[SeededSampler(job.generation, input_ids.shape[1])],
            stopping_criteria=[
                _when(lambda last: job.cancelled.is_set() or last in stop_ids),
            ],
            streamer=_Streamer(job.listen),
        )
        if job.cancelled.is_set():
            return "cancelled"
        return "stop" if int(made[0, -1]) in stop_ids else "length"

    def _pictures(self, generation: Generation) -> dict[str, torch.Tensor]:
        pixels = [torch.from_numpy(span.media.features) for span in generation.prompt.spans]
        if not pixels:
            return {}
        return {"pixel_values": torch.stack(pixels).to(self._device, self._model.dtype)}


class SeededSampler:
    """Samples by itself, as a logits processor, so that each generation has a random stream of its own.

    ``generate`` would draw from torch's one global generator, and neighbours would change each other's
    text. With Gumbel noise added to ``logits / temperature`` the arg max is a sample of the softmax
    (Gumbel 1954), so ``generate`` can stay greedy.
    """

    def __init__(self, generation: Generation, prompt_length: int) -> None:
        self._sampling = generation.sampling
        self._stop_ids = sorted(generation.stop_token_ids)
        self._no_stop_before = prompt_length + generation.min_tokens
        seed = self._sampling.seed if self._sampling.seed is not None else secrets.randbits(63)
        self._random = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Logits ``[1, vocabulary]`` → the same, such that their arg max is the sampled token."""
        scores = scores.float()
        if input_ids.shape[1] < self._no_stop_before:
            scores[:, self._stop_ids] = -torch.inf
        if self._sampling.temperature == 0:
            return scores
        noise = torch.empty(scores.shape).exponential_(generator=self._random).log().neg()
        return _truncate(scores / self._sampling.temperature, self._sampling) + noise.to(scores.device)


def _truncate(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """``[1, vocabulary]``: minus infinity outside the top k and the nucleus (Holtzman et al. 2020)."""
    ordered, order = logits.sort(descending=True)
    drop = torch.zeros_like(ordered, dtype=torch.bool)
    if sampling.top_k:
        drop[:, sampling.top_k :] = True
    if sampling.top_p < 1:
        kept = ordered.masked_fill(drop, -torch.inf).softmax(-1)
        drop |= kept.cumsum(-1) - kept >= sampling.top_p  # the mass before a token decides on it
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), -torch.inf)


class _Streamer:
    """Passes new tokens on; what ``generate`` puts first is the prompt."""

    def __init__(self, listen: Listener) -> None:
        self._listen = listen
        self._seen_prompt = False

    def put(self, value: torch.Tensor) -> None:
        if self._seen_prompt:
            self._listen(Step(token_ids=tuple(value.reshape(-1).tolist())))
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
