"""A plan to token ids: the tensors of the engine, and nothing that it would have to remember of a request."""

import logging
import time
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from gemma_model.device import describe_device, pick_device
from gemma_model.engine.choice import Choice
from gemma_model.engine.chooser import Chooser, describe_failure
from gemma_model.engine.decoding import Capture, CudaGraphs, Direct, Step, recorded
from gemma_model.engine.encoder_inputs import find_media, key_of
from gemma_model.engine.finite import failed_prefills, finite_rows
from gemma_model.engine.memory import check_fits, free_host_memory
from gemma_model.engine.outcome import Outcome
from gemma_model.engine.pace import Pace
from gemma_model.engine.plan import Decode, Plan, Prefill
from gemma_model.engine.scores import score
from gemma_model.engine.sequence import Key, Name
from gemma_model.engine.soft_tokens import SoftTokens, put_in_place, refuse, run_encoder
from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache, bytes_per_slot
from gemma_model.models.loader import load_model
from gemma_model.models.model import Model
from gemma_model.protocol import Generation, Scores
from gemma_model.settings import Settings

log = logging.getLogger(__name__)
SCORED_AT_ONCE = 32
"""Positions of a prompt whose logits exist at once: over a vocabulary of 262,400 each takes 1 MB."""


@dataclass(frozen=True)
class Piece:
    """A chunk of a prompt, with its embeddings ``[tokens, hidden]``."""

    prefill: Prefill
    ids: Sequence[int]
    x: Tensor


class Runner:
    """Runs plans.

    Args:
        decoder: with its weights.
        cache: all slots.
        soft_tokens: what stands for pictures and sounds.
        variants: models nested in the decoder, by the names that requests use.
        chunk: prompt tokens in one step; an encoder runs as long as they take.
        clock: seconds.
    """

    def __init__(
        self,
        decoder: Model,
        cache: KVCache,
        soft_tokens: SoftTokens,
        variants: Mapping[str, Model] = MappingProxyType({}),
        chunk: int = 512,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._pace, self._clock = Pace(chunk), clock
        self._decoder, self._cache, self._soft_tokens = decoder, cache, soft_tokens
        self._decoders = dict[str | None, Model]([(None, decoder), *variants.items()])
        self._direct = {name: Direct(own, cache) for name, own in self._decoders.items()}
        self._steps: dict[str | None, Step] = {**self._direct}
        self._chooser = Chooser(decoder.vocab_size)

    @property
    def encoded(self) -> Container[Key]:
        """See ``PlanRunner``."""
        return self._soft_tokens

    def retain(self, needed: Collection[Key]) -> None:
        """See ``PlanRunner``."""
        self._soft_tokens.retain(needed)

    @torch.inference_mode()
    def record(self, capture: Callable[[], Capture], ways: Mapping[str, bool]) -> None:
        """Replay steps that decode instead of running them, where that can be had; before the first plan."""
        self._steps = recorded(self._direct, capture, ways)

    @torch.inference_mode()
    def run(self, plan: Plan, choices: Mapping[Name, Choice]) -> Outcome:
        """Run every sequence of the plan."""
        for slot in plan.clears:
            self._cache.clear(slot)
        prepared = self._chooser.prepare(plan.rows, choices)
        failed = dict(self._encode(plan, choices))
        prompt_scores: dict[Name, list[Scores]] = {}
        given: dict[Name, Tensor | None] = {}
        pieces: dict[str | None, list[Piece]] = {}
        for prefill in plan.prefills:
            generation = choices[prefill.name].generation
            try:
                x = self._input(prefill, generation)
            except Exception as error:  # not as many soft tokens as there are places for them
                failed |= dict.fromkeys(prefill.names, describe_failure(prefill.name, error))
                continue
            if generation.prompt_logprobs is not None:
                given[prefill.name], prompt_scores[prefill.name] = self._score(prefill, generation, x)
            else:
                ids = generation.prompt.token_ids[prefill.start : prefill.stop]
                pieces.setdefault(generation.variant, []).append(Piece(prefill, ids, x))
        for variant, some in pieces.items():
            began = self._clock()
            given |= self._prefill(variant, some)
            self._pace.prefilled(sum(len(piece.ids) for piece in some), self._clock() - began)
        run = [prefill for prefill in plan.prefills if prefill.name not in failed]
        failed |= failed_prefills(run, self._cache)
        ended = ((prefill, given.get(prefill.name)) for prefill in run if prefill.name not in failed)
        logits = [self._forked(prefill, own) for prefill, own in ended if own is not None]
        if plan.decodes:
            logits.append(self._decode(plan.decodes, choices))
        rows = [row for row in plan.rows if row.name not in failed]
        if not rows:
            return Outcome(failed=failed, prompt_scores=prompt_scores)
        finite, rows, broken = finite_rows(_together(logits), rows)
        chosen = self._chooser.choose(finite, rows, choices, prepared) if rows else Outcome()
        return replace(chosen, failed={**failed, **broken, **chosen.failed}, prompt_scores=prompt_scores)

    def close(self) -> None:
        """Return when no thread is left."""
        self._chooser.close()

    def _encode(self, plan: Plan, choices: Mapping[Name, Choice]) -> Mapping[Name, str]:
        """Go on with an encoder, if the plan says so; why those fail who wait for it, if it does."""
        if plan.encode is None:
            return {}
        key, names = plan.encode.key, plan.encode.names
        try:
            media = find_media(choices[names[0]].generation, key)
            self._soft_tokens.advance(key, media, self._pace.chunk_seconds)
        except Exception as error:  # it choked on what it was given; nobody else has to pay for it
            return dict.fromkeys(names, describe_failure(names[0], error))
        return {}

    def _input(self, prefill: Prefill, generation: Generation) -> Tensor:
        """Embeddings of a chunk, ``[tokens, hidden]``, soft tokens in their places."""
        x = self._decoder.embed(generation.prompt.token_ids[prefill.start : prefill.stop])
        for span in generation.prompt.spans:
            if span.start < prefill.stop and prefill.start < span.start + span.length:
                tokens = self._soft_tokens[key_of(span.media, generation.cache_salt)]
                put_in_place(tokens, span, x, prefill.start)
        return x

    def _prefill(self, variant: str | None, pieces: Sequence[Piece]) -> Mapping[Name, Tensor]:
        """Chunks of prompts, all at once; the logits ``[1, vocab]`` of each that ends its prompt."""
        decoder, keep = self._decoders[variant], int(any(piece.prefill.ends_prompt for piece in pieces))
        x = torch.cat([piece.x for piece in pieces])
        ids = [i for piece in pieces for i in piece.ids]
        batches = [Batch([piece.prefill.slot], [piece.prefill.start], len(piece.ids)) for piece in pieces]
        logits = decoder.prefill(ids, x, batches, self._cache, keep)
        if logits is None:
            return {}
        each = zip(pieces, logits.unsqueeze(1), strict=True)
        return {piece.prefill.name: own for piece, own in each if piece.prefill.ends_prompt}

    def _forked(self, prefill: Prefill, logits: Tensor) -> Tensor:
        """A row for each choice of the request, all of which now have what its prompt left in the cache."""
        for layer in self._cache.layers:
            for fork in prefill.forks:
                layer[fork.slot, :, : prefill.stop] = layer[prefill.slot, :, : prefill.stop]
        return logits.expand(len(prefill.names), -1)

    def _score(
        self, prefill: Prefill, generation: Generation, x: Tensor
    ) -> tuple[Tensor | None, list[Scores]]:
        """As ``_prefill``, in pieces so short that the logits of all their positions can be looked at."""
        ids, found, logits = generation.prompt.token_ids, list[Scores](), None
        for start in range(prefill.start, prefill.stop, SCORED_AT_ONCE):
            stop = min(start + SCORED_AT_ONCE, prefill.stop)
            piece = x[start - prefill.start : stop - prefill.start]
            batch = Batch([prefill.slot], [start], stop - start)
            decoder = self._decoders[generation.variant]
            logits = decoder.prefill(ids[start:stop], piece, [batch], self._cache, keep=stop - start)
            assert logits is not None, "they were asked for"
            behind = ids[start + 1 : stop + 1]  # the last token of a prompt has a new one behind it
            found += score(logits[: len(behind)], behind, generation.prompt_logprobs or 0, with_ranks=True)
        return (logits[-1:] if logits is not None and prefill.ends_prompt else None), found

    def _decode(self, decodes: Sequence[Decode], choices: Mapping[Name, Choice]) -> Tensor:
        """Logits of all, ``[len(decodes), vocab]``; those that one model runs go through it together."""
        places: dict[str | None, list[int]] = {}
        for place, decode in enumerate(decodes):
            places.setdefault(choices[decode.name].generation.variant, []).append(place)
        logits = [self._steps[variant](*_new_tokens(decodes, own)) for variant, own in places.items()]
        if len(logits) == 1:
            return logits[0]
        order = torch.tensor([place for own in places.values() for place in own], device=logits[0].device)
        return torch.cat(logits)[order.argsort()]


class Loaded:
    """A checkpoint in memory, ready to run.

    Args:
        checkpoint: its folder.
        settings: the engine's.

    Raises:
        InvalidRequest: when the checkpoint or a setting is not supported, or the cache does not fit.
    """

    def __init__(self, checkpoint: Path, settings: Settings) -> None:
        self.device = pick_device(settings.device)
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # of this thread, for graphs and streams
        self.device_name = describe_device(self.device)
        loaded = load_model(checkpoint, settings, self.device)
        self.model, self.host_table, self.memory_bytes = loaded.model, loaded.host_table, loaded.weight_bytes
        self.dtype, self.length = self.model.dtype, settings.max_model_len or loaded.max_length
        self._check_cache(settings)
        spec, slots, rewind = self.model.cache_spec, settings.max_num_seqs, settings.rewind
        cache = KVCache(spec, slots, self.length, rewind, self.device, self.dtype)
        self.window, self.ring = cache.window, cache.ring
        encode = refuse if loaded.encoders is None else partial(run_encoder, loaded.encoders)
        soft_tokens = SoftTokens(encode, settings.media_cache_bytes)
        self.runner = Runner(self.model, cache, soft_tokens, loaded.nested, settings.prefill_chunk)
        if self.device.type == "cuda" and settings.compile == "auto":
            self.runner.record(CudaGraphs, {"compiled layers": True, "PyTorch's own operations": False})

    def _check_cache(self, settings: Settings) -> None:
        cuda = self.device.type == "cuda"
        free = torch.cuda.mem_get_info(self.device)[0] if cuda else free_host_memory()
        spec, itemsize = self.model.cache_spec, self.dtype.itemsize
        per_slot = partial(bytes_per_slot, spec, rewind=settings.rewind, itemsize=itemsize)
        log.info("KV cache: %s", check_fits(per_slot, settings.max_num_seqs, self.length, free))


def _new_tokens(decodes: Sequence[Decode], places: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Ids, slots and positions of some."""
    some = [decodes[place] for place in places]
    return [d.token_id for d in some], [d.slot for d in some], [d.position for d in some]


def _together(logits: Sequence[Tensor]) -> Tensor:
    """All rows; those of one model's step are not copied, for they are many megabytes."""
    return torch.cat(list(logits)) if len(logits) > 1 else logits[0].contiguous()
