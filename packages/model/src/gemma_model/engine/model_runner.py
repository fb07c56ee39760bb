"""Runs a step plan: prefills, decoding, encoders, sampling. It keeps tensors, but no state of requests."""

import logging
import time
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor

from gemma_model.engine.cuda_graphs import Capture, DecodeStep, EagerStep, capture_graphs
from gemma_model.engine.media_encoder import MediaEncoder, put_in_place
from gemma_model.engine.nan_check import broken_rows, failed_prefills, finite_rows
from gemma_model.engine.prefill_pace import PrefillPace
from gemma_model.engine.request_state import find_media, media_key
from gemma_model.engine.sequence import MediaKey, SeqId
from gemma_model.engine.step_plan import Decode, Prefill, StepPlan, TokenRow
from gemma_model.engine.step_result import StepResult, log_failure
from gemma_model.engine_types import EngineRequest, PositionLogprobs
from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_block_pool import KVBlockPool
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.model import Model
from gemma_model.sampling.logprobs import compute_logprobs
from gemma_model.sampling.sampler import PendingTokens, Sampler
from gemma_model.sampling.sampling_state import SamplingState

log = logging.getLogger(__name__)
NewToken = tuple[int, int, int]
"""The id, slot and position of a token that runs."""
POSITIONS_AT_ONCE = 32
"""Positions of a prompt whose logits exist at once: with a vocabulary of 262,400 each takes 1 MB."""


@dataclass(frozen=True)
class PrefillChunk:
    """A chunk of a prompt, with its embeddings ``[tokens, hidden]``."""

    prefill: Prefill
    ids: Sequence[int]
    x: Tensor


class ModelRunner:
    """Runs steps.

    Args:
        decoder: with its weights.
        cache: of all slots.
        block_pool: of the prefix cache.
        media_encoder: soft tokens of images and audio.
        variants: nested models of the decoder, by the names that requests use.
        chunk: prompt tokens in one step; an encoder runs as long as they take.
        clock: seconds.
    """

    def __init__(
        self,
        decoder: Model,
        cache: KVCache,
        block_pool: KVBlockPool,
        media_encoder: MediaEncoder,
        variants: Mapping[str, Model] = MappingProxyType({}),
        chunk: int = 512,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._pace, self._clock = PrefillPace(chunk), clock
        self._decoder, self._cache, self._media_encoder = decoder, cache, media_encoder
        self._block_pool = block_pool
        self._decoders = dict[str | None, Model]([(None, decoder), *variants.items()])
        self._eager = {name: EagerStep(own, cache) for name, own in self._decoders.items()}
        self._steps: dict[str | None, DecodeStep] = {**self._eager}
        self._sampler = Sampler(decoder.vocab_size)

    @property
    def encoded(self) -> Container[MediaKey]:
        """See ``StepRunner``."""
        return self._media_encoder

    def retain(self, needed: Collection[MediaKey]) -> None:
        """See ``StepRunner``."""
        self._media_encoder.retain(needed)

    @torch.inference_mode()
    def capture_graphs(self, capture: Callable[[], Capture], ways: Mapping[str, bool]) -> None:
        """Use captured graphs for decoding where possible; to be called before the first step."""
        self._steps = capture_graphs(self._eager, capture, ways)

    @torch.inference_mode()
    def run(self, plan: StepPlan, states: Mapping[SeqId, SamplingState]) -> StepResult:
        """See ``StepRunner``."""
        for save in plan.saves:
            self._block_pool.save(*save)
        for slot in plan.clears:
            self._cache.clear(slot)
        for load in plan.loads:
            self._block_pool.load(*load)
        pending = {
            row.seq_id: self._sampler.prepare(states[row.seq_id], row.generated, row.stop_allowed, row.draft)
            for row in plan.rows
        }
        failed = dict(self._encode(plan, states))
        last_logits, prompt_logprobs = self._prefill(plan.prefills, states, failed)
        done = [prefill for prefill in plan.prefills if prefill.seq_id not in failed]
        failed |= failed_prefills(done, self._cache)
        logits = [
            self._fork(prefill, last_logits[prefill.seq_id])
            for prefill in done
            if prefill.seq_id in last_logits and prefill.seq_id not in failed
        ]
        if plan.decodes:
            own, decodes = self._decode(plan.decodes, states)
            logits, plan = [*logits, own], replace(plan, decodes=decodes)
        rows = [row for row in plan.rows if row.seq_id not in failed]
        result = self._sample(logits, rows, pending) if rows else StepResult()
        return replace(result, failed={**failed, **result.failed}, prompt_logprobs=prompt_logprobs)

    def close(self) -> None:
        """Return when no thread is left."""
        self._sampler.close()

    def _encode(self, plan: StepPlan, states: Mapping[SeqId, SamplingState]) -> Mapping[SeqId, str]:
        """Continue to encode the plan's medium, if it has one; the failures of those who need it."""
        if plan.encode is None:
            return {}
        key, seq_ids = plan.encode.key, plan.encode.seq_ids
        try:
            media = find_media(states[seq_ids[0]].request, key)
            self._media_encoder.advance(key, media, self._pace.chunk_seconds)
        except Exception as error:  # a bad input must not affect other requests
            return dict.fromkeys(seq_ids, log_failure(seq_ids[0], error))
        return {}

    def _prefill(
        self,
        prefills: Sequence[Prefill],
        states: Mapping[SeqId, SamplingState],
        failed: dict[SeqId, str],
    ) -> tuple[dict[SeqId, Tensor], dict[SeqId, list[PositionLogprobs]]]:
        """Run chunks of prompts; failures are added to ``failed``.

        Returns:
            The last logits ``[1, vocab]`` of each prompt that ends, and the prompts' log probabilities.
        """
        last_logits: dict[SeqId, Tensor] = {}
        prompt_logprobs: dict[SeqId, list[PositionLogprobs]] = {}
        chunks: dict[str | None, list[PrefillChunk]] = {}
        for prefill in prefills:
            request = states[prefill.seq_id].request
            try:
                x = self._embed_chunk(prefill, request)
            except Exception as error:  # the number of soft tokens differs from that of their positions
                failed |= dict.fromkeys(prefill.seq_ids, log_failure(prefill.seq_id, error))
                continue
            if request.prompt_logprobs is None:
                ids = request.prompt.token_ids[prefill.start : prefill.stop]
                chunks.setdefault(request.variant, []).append(PrefillChunk(prefill, ids, x))
            else:
                logits, prompt_logprobs[prefill.seq_id] = self._prefill_with_logprobs(prefill, request, x)
                last_logits |= {prefill.seq_id: logits} if prefill.ends_prompt else {}
        for variant, some in chunks.items():
            began = self._clock()
            last_logits |= self._prefill_chunks(variant, some)
            self._pace.add(sum(len(chunk.ids) for chunk in some), self._clock() - began)
        return last_logits, prompt_logprobs

    def _embed_chunk(self, prefill: Prefill, request: EngineRequest) -> Tensor:
        """Embeddings of a chunk, ``[tokens, hidden]``, including soft tokens."""
        x = self._decoder.embed(request.prompt.token_ids[prefill.start : prefill.stop])
        for span in request.prompt.spans:
            if span.start < prefill.stop and prefill.start < span.start + span.length:
                tokens = self._media_encoder[media_key(span.media, request.cache_salt)]
                put_in_place(tokens, span, x, prefill.start)
        return x

    def _prefill_chunks(self, variant: str | None, chunks: Sequence[PrefillChunk]) -> Mapping[SeqId, Tensor]:
        """Chunks of prompts, all at once; the last logits ``[1, vocab]`` of each prompt that ends."""
        keep = int(any(chunk.prefill.ends_prompt for chunk in chunks))
        x = torch.cat([chunk.x for chunk in chunks])
        ids = [i for chunk in chunks for i in chunk.ids]
        batches = [Batch([chunk.prefill.slot], [chunk.prefill.start], len(chunk.ids)) for chunk in chunks]
        logits = self._decoders[variant].prefill(ids, x, batches, self._cache, keep)
        if logits is None:
            return {}
        each = zip(chunks, logits.unsqueeze(1), strict=True)
        return {chunk.prefill.seq_id: own for chunk, own in each if chunk.prefill.ends_prompt}

    def _prefill_with_logprobs(
        self, prefill: Prefill, request: EngineRequest, x: Tensor
    ) -> tuple[Tensor, list[PositionLogprobs]]:
        """A chunk in parts that are small enough for the logits of all their positions.

        Returns:
            The logits ``[1, vocab]`` after the last token, and the log probabilities of the prompt tokens
            that follow each token of the chunk.
        """
        ids, found = request.prompt.token_ids, list[PositionLogprobs]()
        decoder, logits = self._decoders[request.variant], None
        for start in range(prefill.start, prefill.stop, POSITIONS_AT_ONCE):
            stop = min(start + POSITIONS_AT_ONCE, prefill.stop)
            part = x[start - prefill.start : stop - prefill.start]
            batch = Batch([prefill.slot], [start], stop - start)
            logits = decoder.prefill(ids[start:stop], part, [batch], self._cache, keep=stop - start)
            assert logits is not None, "they were requested"
            following = ids[start + 1 : stop + 1]  # the last token of a prompt is followed by a new one
            top = request.prompt_logprobs or 0
            found += compute_logprobs(logits[: len(following)], following, top, with_ranks=True)
        assert logits is not None, "a chunk is not empty"
        return logits[-1:], found

    def _fork(self, prefill: Prefill, logits: Tensor) -> Tensor:
        """Copy a prompt's keys and values to the slots of the other choices; a row of logits for each."""
        for layer in self._cache.layers:
            for fork in prefill.forks:
                layer[fork.slot, :, : prefill.stop] = layer[prefill.slot, :, : prefill.stop]
        return logits.expand(len(prefill.seq_ids), -1)

    def _decode(
        self, decodes: tuple[Decode, ...], states: Mapping[SeqId, SamplingState]
    ) -> tuple[Tensor, tuple[Decode, ...]]:
        """The logits of all, and what was decoded.

        A draft may be wrong, and its tokens must not make a sequence fail: if there is infinity or NaN, the
        sequence runs without it.
        """
        logits = self._run_decodes(decodes, states)
        if not any(decode.draft for decode in decodes):
            return logits, decodes
        broken = broken_rows(logits, [1 + len(decode.draft) for decode in decodes])
        failed = {d.seq_id for d, fails in zip(decodes, broken, strict=True) if fails and d.draft}
        if not failed:
            return logits, decodes
        for decode in decodes:
            if decode.seq_id in failed:
                self._cache.clear_positions(decode.slot, decode.draft_positions)
        decodes = tuple(replace(d, draft=()) if d.seq_id in failed else d for d in decodes)
        return self._run_decodes(decodes, states), decodes

    def _run_decodes(self, decodes: Sequence[Decode], states: Mapping[SeqId, SamplingState]) -> Tensor:
        """Logits of all tokens in order, ``[tokens, vocab]``; sequences of the same model form one batch.

        The tokens of a draft are rows like those of other sequences: all keys and values are written before
        a row reads them, and a row sees only those of earlier positions.
        """
        rows: dict[str | None, list[NewToken]] = {}
        places: dict[str | None, list[int]] = {}
        count = 0
        for decode in decodes:
            variant, own = states[decode.seq_id].request.variant, _new_tokens(decode)
            rows.setdefault(variant, []).extend(own)
            places.setdefault(variant, []).extend(range(count, count + len(own)))
            count += len(own)
        logits = [self._steps[variant](*zip(*own, strict=True)) for variant, own in rows.items()]
        if len(logits) == 1:
            return logits[0]
        order = torch.tensor([place for own in places.values() for place in own], device=logits[0].device)
        return torch.cat(logits)[order.argsort()]

    def _sample(
        self, logits: Sequence[Tensor], rows: Sequence[TokenRow], pending: Mapping[SeqId, PendingTokens]
    ) -> StepResult:
        """Tokens for each sequence whose logits are finite and whose constraint does not fail."""
        finite, rows, failed = finite_rows(_concat(logits), rows)
        tokens, logprobs = dict[SeqId, list[int]](), dict[SeqId, list[PositionLogprobs]]()
        wanted = [pending[row.seq_id]._replace(draft=row.draft) for row in rows]
        sampled = self._sampler.sample(finite, wanted) if rows else []
        for row, own in zip(rows, sampled, strict=True):
            if isinstance(own, Exception):
                failed[row.seq_id] = log_failure(row.seq_id, own)
                continue
            tokens[row.seq_id] = [one.token_id for one in own]
            if known := [one.logprobs for one in own if one.logprobs is not None]:
                logprobs[row.seq_id] = known
        return StepResult(tokens, failed, logprobs)


def _new_tokens(decode: Decode) -> list[NewToken]:
    """The last token of a sequence and its draft."""
    ids, positions = (decode.token_id, *decode.draft), (decode.position, *decode.draft_positions)
    return [(token_id, decode.slot, position) for token_id, position in zip(ids, positions, strict=True)]


def _concat(logits: Sequence[Tensor]) -> Tensor:
    """All rows; the rows of a single batch are not copied, because they have many megabytes."""
    return torch.cat(list(logits)) if len(logits) > 1 else logits[0].contiguous()
