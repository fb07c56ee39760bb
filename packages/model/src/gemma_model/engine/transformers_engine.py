"""An ``Engine`` over the ``generate`` method of ``transformers``.

It is the reference for the numbers of the native engine, and can serve architectures that this does not know.
A thread runs each request, one choice after the other; the rest wait in a queue.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig
from transformers.utils.logging import disable_progress_bar

from gemma_model.checkpoint import read_config
from gemma_model.device import describe_device, pick_device
from gemma_model.engine.transformers_sampler import SeededSampler, position_logprobs
from gemma_model.engine_types import (
    EngineInfo,
    EngineOutput,
    EngineRequest,
    Observation,
    OutputCallback,
    PositionLogprobs,
    StopCause,
)
from gemma_model.settings import Settings
from gemma_wire import InvalidRequest, Overloaded
from gemma_wire.gguf_sources import read_reference

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
MAX_PROMPT_LOGPROBS = 1024
"""Tokens of a prompt whose logits exist at once: with a vocabulary of 262,400 each takes 1 MB."""


@dataclass
class _Submitted:
    request: EngineRequest
    on_output: OutputCallback
    cancelled: set[int] = field(default_factory=set)  # choices


class TransformersEngine:
    """An ``Engine`` over ``transformers``.

    Args:
        folder: of the checkpoint.
        settings: device, dtype, and the numbers of requests that run and wait.

    Raises:
        InvalidRequest: it is a GGUF file.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        if read_reference(folder)[0]:
            raise InvalidRequest("the reference engine does not read GGUF files", "engine")
        disable_progress_bar()  # a log file would show it as one long line
        self._device = pick_device(settings.device)
        dtype = DTYPES.get(settings.dtype, "auto")
        is_text_model = "text_config" not in read_config(folder)
        auto_model = AutoModelForCausalLM if is_text_model else AutoModelForImageTextToText
        self._model: Any = auto_model.from_pretrained(folder, dtype=dtype)
        self._model.eval().to(self._device)
        self._model.generation_config = _plain_config(1)  # so that the checkpoint's is not merged into ours
        self._memory_bytes = sum(p.numel() * p.element_size() for p in self._model.parameters())
        self._max_num_seqs, self._max_queue = settings.max_num_seqs, settings.max_queue
        self._pool = ThreadPoolExecutor(settings.max_num_seqs, thread_name_prefix="generate")
        self._ids = count(1)
        self._lock = threading.Lock()
        self._submitted: dict[int, _Submitted] = {}
        self._running: set[int] = set()

    def submit(self, request: EngineRequest, on_output: OutputCallback) -> int:
        """See ``Engine.submit``."""
        too_long = len(request.prompt.token_ids) > MAX_PROMPT_LOGPROBS
        if request.prompt_logprobs is not None and too_long:
            message = f"the reference engine reports those of at most {MAX_PROMPT_LOGPROBS} tokens"
            raise InvalidRequest(message, "prompt_logprobs")
        with self._lock:
            if len(self._submitted) - self._max_num_seqs >= self._max_queue:
                raise Overloaded(f"{self._max_queue} requests are waiting already; try again later")
            request_id = next(self._ids)
            self._submitted[request_id] = _Submitted(request, on_output)
            self._pool.submit(self._run, request_id)
        return request_id

    def cancel(self, request_id: int, choice: int | None = None) -> None:
        """See ``Engine.cancel``."""
        if own := self._submitted.get(request_id):
            own.cancelled.update(range(own.request.n) if choice is None else [choice])

    def info(self) -> EngineInfo:
        """See ``Engine.info``."""
        with self._lock:
            running, waiting = len(self._running), len(self._submitted) - len(self._running)
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
        """See ``Engine.observations``; this engine measures nothing."""
        return []

    def close(self) -> None:
        """See ``Engine.close``."""
        for request_id in list(self._submitted):
            self.cancel(request_id)
        self._pool.shutdown(wait=True)

    def _run(self, request_id: int) -> None:
        own = self._submitted[request_id]
        with self._lock:
            self._running.add(request_id)
        *others, last = range(own.request.n)
        for choice in others:
            own.on_output(self._run_choice(own, choice))
        end = self._run_choice(own, last)
        with self._lock:
            self._running.discard(request_id)
            del self._submitted[request_id]
        own.on_output(end)

    def _run_choice(self, own: _Submitted, choice: int) -> EngineOutput:
        """Run one choice, including its prompt; returns its last output."""
        try:
            return EngineOutput(choice=choice, finish=self._generate(own, choice))
        except Exception as error:
            return EngineOutput(choice=choice, error=f"{type(error).__name__}: {error}")

    @torch.inference_mode()
    def _generate(self, own: _Submitted, choice: int) -> StopCause:
        if choice in own.cancelled:
            return "cancelled"
        request, stop_ids = own.request, own.request.stop_token_ids
        input_ids = torch.tensor([request.prompt.token_ids], device=self._device)
        inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        inputs |= self._media_inputs(request)
        sampler = SeededSampler(request, input_ids.shape[1], choice)
        prompt_logprobs = self._prompt_logprobs(request, inputs) if choice == 0 else ()
        output_ids = self._model.generate(
            **inputs,
            generation_config=_plain_config(request.max_tokens),
            logits_processor=[sampler],
            stopping_criteria=[_when(lambda last: choice in own.cancelled or last in stop_ids)],
            streamer=_Streamer(own.on_output, sampler, choice, prompt_logprobs),
        )
        if choice in own.cancelled:
            return "cancelled"
        return "stop" if int(output_ids[0, -1]) in stop_ids else "length"

    def _media_inputs(self, request: EngineRequest) -> dict[str, torch.Tensor]:
        media = [span.media for span in request.prompt.spans]
        images = [torch.from_numpy(x.features) for x in media if x.modality == "image"]
        audio = [torch.from_numpy(x.features) for x in media if x.modality == "audio"]
        inputs = {}
        if images:
            inputs["pixel_values"] = torch.stack(images).to(self._device, self._model.dtype)
        if audio:
            padded = pad_sequence(audio, batch_first=True).to(self._device, self._model.dtype)
            mask = pad_sequence([torch.ones(len(x), dtype=torch.bool) for x in audio], batch_first=True)
            inputs |= {"input_features": padded, "input_features_mask": mask.to(self._device)}
        return inputs

    def _prompt_logprobs(
        self, request: EngineRequest, inputs: Mapping[str, torch.Tensor]
    ) -> tuple[PositionLogprobs, ...]:
        if (top := request.prompt_logprobs) is None:
            return ()
        rows = self._model(**inputs).logits[0].float().log_softmax(-1)
        following = request.prompt.token_ids[1:]
        return tuple(
            position_logprobs(row, i, top, with_rank=True) for row, i in zip(rows, following, strict=False)
        )


class _Streamer:
    """Reports new tokens; the first that ``generate`` puts is the prompt."""

    def __init__(
        self,
        on_output: OutputCallback,
        sampler: SeededSampler,
        choice: int,
        prompt_logprobs: tuple[PositionLogprobs, ...],
    ) -> None:
        self._on_output, self._sampler, self._choice = on_output, sampler, choice
        self._prompt_logprobs = prompt_logprobs
        self._seen_prompt = False

    def put(self, value: torch.Tensor) -> None:
        if self._seen_prompt:
            ids, logprobs = tuple(value.reshape(-1).tolist()), self._sampler.logprobs
            self._on_output(EngineOutput(ids, self._choice, logprobs, self._prompt_logprobs))
            self._prompt_logprobs = ()
        self._seen_prompt = True

    def end(self) -> None:
        """The last output is sent by ``_run``."""


def _when(test: Callable[[int], bool]) -> Callable[..., torch.Tensor]:
    """A stopping criterion; ``test`` gets the newest token."""

    def criterion(input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:  # noqa: ARG001
        return torch.tensor([test(int(input_ids[0, -1]))], device=input_ids.device)

    return criterion


def _plain_config(max_tokens: int) -> GenerationConfig:
    """Greedy, and nothing of the checkpoint's own: sampling and stopping are ours."""
    return GenerationConfig(max_new_tokens=max_tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
