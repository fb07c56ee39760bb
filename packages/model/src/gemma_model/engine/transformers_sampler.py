"""Samples within the ``generate`` method of ``transformers``, for the reference engine."""

import math
import secrets
from collections.abc import Sequence

import torch
from transformers import RepetitionPenaltyLogitsProcessor

from gemma_model.engine_types import MIN_LOGPROB, EngineRequest, EngineSamplingParams, PositionLogprobs


class SeededSampler:
    """A logits processor that samples with a random stream of its own for each choice.

    ``generate`` would use torch's one global generator, so concurrent requests would change each other's
    text. With Gumbel noise added to ``logits / temperature`` the arg max is a sample of the softmax
    (Gumbel 1954), so ``generate`` can stay greedy.
    """

    def __init__(self, request: EngineRequest, prompt_length: int, choice: int = 0) -> None:
        self._params, self._prompt_length = request.sampling, prompt_length
        self._stop_ids = sorted(request.stop_token_ids)
        self._no_stop_before = prompt_length + request.min_tokens
        self._constraint = request.constraint and request.constraint.fork()
        self._top, self._token_ids = request.logprobs, request.logprob_token_ids
        self._repetition = RepetitionPenaltyLogitsProcessor(self._params.repetition_penalty)
        seed = self._params.seed if self._params.seed is not None else secrets.randbits(63)
        self._random = torch.Generator().manual_seed(seed if choice == 0 else hash((seed, choice)))
        self.logprobs: tuple[PositionLogprobs, ...] = ()
        """Of the last token, if requested."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Logits ``[1, vocabulary]`` → logits whose arg max is the sampled token."""
        output, raw = input_ids[0, self._prompt_length :], scores.float()
        chosen = self._constrain(self._penalise(raw.clone(), input_ids, output), output)
        if self._params.temperature != 0:
            noise = torch.empty(chosen.shape).exponential_(generator=self._random).log().neg()
            chosen = truncate(chosen / self._params.temperature, self._params) + noise.to(chosen.device)
        if self._top is not None:
            row, token_id = raw[0].log_softmax(-1), int(chosen.argmax())
            self.logprobs = (position_logprobs(row, token_id, self._top, self._token_ids),)
        return chosen

    def _penalise(self, logits: torch.Tensor, input_ids: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        logits = self._repetition(input_ids, logits)
        counts = torch.bincount(output, minlength=logits.shape[1]).to(logits)
        logits -= self._params.frequency_penalty * counts
        logits -= self._params.presence_penalty * counts.sign()
        for token_id, bias in self._params.logit_bias.items():
            if token_id < logits.shape[1]:
                logits[:, token_id] += bias
        return logits

    def _constrain(self, logits: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        every = torch.arange(logits.shape[1], device=logits.device)
        allowed = torch.ones_like(every, dtype=torch.bool)
        if self._constraint is not None:
            if len(output):
                self._constraint.advance(int(output[-1]))
            words = torch.from_numpy(self._constraint.allowed()).to(logits.device)
            allowed = (words[every // 32] >> (every % 32)) & 1 == 1
        if self._prompt_length + len(output) < self._no_stop_before:
            longer = allowed & ~torch.isin(every, torch.tensor(self._stop_ids, device=logits.device))
            allowed = longer if longer.any() else allowed
        return logits.masked_fill(~allowed, -torch.inf)


def position_logprobs(
    logprobs: torch.Tensor, token_id: int, top: int, token_ids: Sequence[int] = (), with_rank: bool = False
) -> PositionLogprobs:
    """Of a token, and of the most likely or the requested tokens; ``[vocabulary]``."""
    others = list(token_ids) or logprobs.sort(descending=True, stable=True).indices[:top].tolist()
    pairs = zip(others, logprobs[others].tolist(), strict=True)
    own = float(logprobs[token_id])
    rank = int((logprobs > own).sum()) + 1 if with_rank else None
    return PositionLogprobs(max(own, MIN_LOGPROB), tuple((i, max(x, MIN_LOGPROB)) for i, x in pairs), rank)


def truncate(logits: torch.Tensor, params: EngineSamplingParams) -> torch.Tensor:
    """``[1, vocabulary]``: minus infinity outside the top k, top p and min p.

    Top-p is by Holtzman et al. (2020), min-p by Nguyen et al. (2024).
    """
    ordered, order = logits.sort(descending=True)
    drop = torch.zeros_like(ordered, dtype=torch.bool)
    if params.top_k:
        drop[:, params.top_k :] = True
    if params.top_p < 1:
        kept = ordered.masked_fill(drop, -torch.inf).softmax(-1)
        drop |= kept.cumsum(-1) - kept >= params.top_p  # the mass before a token decides on it
    if params.min_p:
        drop |= ordered < ordered[:, :1] + math.log(params.min_p)
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), -torch.inf)
