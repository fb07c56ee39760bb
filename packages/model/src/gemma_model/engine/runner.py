"""A plan to token ids: the tensors of the engine, and nothing that it would have to remember of a request."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gemma_model.engine.choice import Choice
from gemma_model.engine.chooser import Chooser, describe_failure
from gemma_model.engine.decoding import Capture, CudaGraphs, Direct, Step, recorded
from gemma_model.engine.finite import failed_prefills, finite_rows
from gemma_model.engine.memory import check_fits, free_host_memory
from gemma_model.engine.outcome import Outcome
from gemma_model.engine.scheduler import Decode, Plan, Prefill
from gemma_model.engine.scores import score
from gemma_model.engine.sequence import Name
from gemma_model.engine.soft_tokens import Encode, SoftTokens
from gemma_model.nn import kernels
from gemma_model.nn.attention import Batch
from gemma_model.nn.cache import KVCache, bytes_per_slot
from gemma_model.nn.compiled import compiled_layers
from gemma_model.nn.config import TextConfig
from gemma_model.nn.device import describe, dtype_of, moved, pick
from gemma_model.nn.layer import Layer, Through
from gemma_model.nn.matformer import Slice
from gemma_model.nn.text import Decoder
from gemma_model.nn.weights import TOWER_PARTS, open_weights
from gemma_model.protocol import Generation, Media, MediaSpan, Scores
from gemma_model.settings import Settings
from gemma_model.variants import variants_of
from gemma_wire import InvalidRequest

if TYPE_CHECKING:
    from gemma_model.nn.towers import Towers

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
        variants: models nested in the decoder, by the names that generations use.
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        soft_tokens: SoftTokens,
        variants: Mapping[str, Slice] = MappingProxyType({}),
    ) -> None:
        self._decoder, self._cache, self._soft_tokens = decoder, cache, soft_tokens
        self._decoders: dict[str | None, Decoder] = {None: decoder}
        self._decoders |= {name: decoder.sliced(part) for name, part in variants.items()}
        self._direct = {name: Direct(own, cache) for name, own in self._decoders.items()}
        self._steps: dict[str | None, Step] = {**self._direct}
        self._chooser = Chooser(decoder.config.vocab_size)

    @torch.inference_mode()
    def record(self, capture: Callable[[], Capture], ways: Mapping[str, Through]) -> None:
        """Replay steps that decode instead of running them, where that can be had; before the first plan."""
        self._steps = recorded(self._direct, capture, ways)

    @torch.inference_mode()
    def run(self, plan: Plan, choices: Mapping[Name, Choice]) -> Outcome:
        """Run every sequence of the plan."""
        for slot in plan.clears:
            self._cache.clear(slot)
        prepared = self._chooser.prepare(plan.rows, choices)
        failed: dict[Name, str] = {}
        prompt_scores: dict[Name, list[Scores]] = {}
        given: dict[Name, Tensor | None] = {}
        pieces: dict[str | None, list[Piece]] = {}
        soft_tokens = self._soft_tokens.of(_due(plan, choices))
        for prefill in plan.prefills:
            generation = choices[prefill.name].generation
            try:
                x = self._input(prefill, generation, soft_tokens)
            except Exception as error:  # a tower choked on what it was given; nobody else has to pay for it
                failed |= dict.fromkeys(prefill.names, describe_failure(prefill.name, error))
                continue
            if generation.prompt_logprobs is not None:
                given[prefill.name], prompt_scores[prefill.name] = self._score(prefill, generation, x)
            else:
                ids = generation.prompt.token_ids[prefill.start : prefill.stop]
                pieces.setdefault(generation.variant, []).append(Piece(prefill, ids, x))
        for variant, some in pieces.items():
            given |= self._prefill(variant, some)
        run = [prefill for prefill in plan.prefills if prefill.name not in failed]
        failed |= failed_prefills(run, self._cache, self._decoder.stack is not None)
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

    def _input(
        self, prefill: Prefill, generation: Generation, soft_tokens: Mapping[Media, Tensor | Exception]
    ) -> Tensor:
        """Embeddings of a chunk, ``[tokens, hidden]``, soft tokens in their places."""
        x = self._embed(generation.prompt.token_ids[prefill.start : prefill.stop])
        for span in generation.prompt.spans:
            _place(x, span, prefill, soft_tokens)
        return x

    def _prefill(self, variant: str | None, pieces: Sequence[Piece]) -> Mapping[Name, Tensor]:
        """Chunks of prompts, all at once; the logits ``[1, vocab]`` of each that ends its prompt."""
        decoder, keep = self._decoders[variant], int(any(piece.prefill.ends_prompt for piece in pieces))
        x = torch.cat([piece.x for piece in pieces])
        rows = self._decoder.per_layer_table.rows([i for piece in pieces for i in piece.ids], x)
        batches = [Batch([piece.prefill.slot], [piece.prefill.start], len(piece.ids)) for piece in pieces]
        logits = decoder(x, rows, batches, self._cache, keep)
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
            table_rows = self._decoder.per_layer_table.rows(ids[start:stop], piece)
            batch = Batch([prefill.slot], [start], stop - start)
            decoder = self._decoders[generation.variant]
            logits = decoder(piece, table_rows, [batch], self._cache, keep=stop - start)
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

    def _embed(self, ids: tuple[int, ...]) -> Tensor:
        return self._decoder.embed(moved(torch.tensor(ids), self._decoder.embed.table.device))


class Loaded:
    """A checkpoint in memory, ready to run.

    Args:
        checkpoint: its folder.
        settings: the engine's.

    Raises:
        InvalidRequest: when the checkpoint cannot be honoured, or the cache does not fit.
    """

    def __init__(self, checkpoint: Path, settings: Settings) -> None:
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        self.config = TextConfig.read(config)
        self.device = pick(settings.device)
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # of this thread, for graphs and streams
        self.dtype = dtype_of(settings.dtype, config)
        self.length = settings.max_model_len or self.config.max_position_embeddings
        if self.length > self.config.max_position_embeddings:
            limit = self.config.max_position_embeddings
            raise InvalidRequest(
                f"{self.length} is more than the checkpoint's {limit} tokens", "max_model_len"
            )
        self.device_name = describe(self.device)
        decoder, encode = self._load(checkpoint, config, settings)
        self._check_cache(settings)
        cache = KVCache(
            self.config, settings.max_num_seqs, self.length, settings.rewind, self.device, self.dtype
        )
        self.window, self.ring = self.config.sliding_window, cache.ring
        self.per_layer_table = decoder.per_layer_table
        soft_tokens = SoftTokens(encode, settings.media_cache_bytes)
        self.runner = Runner(decoder, cache, soft_tokens, variants_of(checkpoint, settings))
        if self.device.type == "cuda" and settings.compile == "auto":
            ways = {"compiled layers": compiled_layers(), "PyTorch's own operations": Layer.__call__}
            self.runner.record(CudaGraphs, ways)

    def _load(
        self, checkpoint: Path, config: Mapping[str, Any], settings: Settings
    ) -> tuple[Decoder, Encode]:
        compiled = settings.compile == "auto" and self.device.type == "cpu" and kernels.load()
        weights = open_weights(checkpoint, self.device, self.dtype, compiled)
        decoder = Decoder(self.config, weights, settings.ple == "device")
        encode: Encode = _refuse
        if settings.towers == "none":
            for part in TOWER_PARTS:
                weights.leave_under(f"{part}.", "GEMMA_TOWERS=none")
        elif "text_config" in config:
            from gemma_model.nn.towers import Towers  # noqa: PLC0415 - imports transformers

            towers = Towers(config, weights, self.device, self.dtype)
            with torch.inference_mode():
                decoder.embed.set_hard(*towers.hard_embeddings())
            encode = partial(_encode, towers)
        weights.close()
        for key, reason in weights.unused.items():
            log.debug("%s is not used: %s", key, reason)
        self.memory_bytes = weights.taken_bytes
        return decoder, encode

    def _check_cache(self, settings: Settings) -> None:
        cuda = self.device.type == "cuda"
        free = torch.cuda.mem_get_info(self.device)[0] if cuda else free_host_memory()
        per_slot = partial(bytes_per_slot, self.config, rewind=settings.rewind, itemsize=self.dtype.itemsize)
        log.info("KV cache: %s", check_fits(per_slot, settings.max_num_seqs, self.length, free))


def _due(plan: Plan, choices: Mapping[Name, Choice]) -> Iterator[Media]:
    """Media with soft tokens in the plan's chunks."""
    for prefill in plan.prefills:
        for span in choices[prefill.name].generation.prompt.spans:
            if span.start < prefill.stop and prefill.start < span.start + span.length:
                yield span.media


def _new_tokens(decodes: Sequence[Decode], places: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Ids, slots and positions of some."""
    some = [decodes[place] for place in places]
    return [d.token_id for d in some], [d.slot for d in some], [d.position for d in some]


def _together(logits: Sequence[Tensor]) -> Tensor:
    """All rows; those of one model's step are not copied, for they are many megabytes."""
    return torch.cat(list(logits)) if len(logits) > 1 else logits[0].contiguous()


def _place(
    x: Tensor, span: MediaSpan, prefill: Prefill, soft_tokens: Mapping[Media, Tensor | Exception]
) -> None:
    """Put those soft tokens of a medium into ``x`` that belong to the chunk."""
    first = max(span.start, prefill.start)
    last = min(span.start + span.length, prefill.stop)
    if first < last:
        tokens = soft_tokens[span.media]
        if isinstance(tokens, Exception):
            raise tokens
        if tokens.shape[0] != span.length:
            raise ValueError(f"{tokens.shape[0]} soft tokens for a span of {span.length}")
        x[first - prefill.start : last - prefill.start] = tokens[first - span.start : last - span.start]


def _encode(towers: "Towers", media: Sequence[Media]) -> Tensor:
    features = torch.stack([torch.from_numpy(medium.features) for medium in media])
    return towers.see(features) if media[0].modality == "image" else towers.hear(features)


def _refuse(media: Sequence[Media]) -> Tensor:
    raise InvalidRequest(f"the checkpoint has no tower for {media[0].modality}", "messages")
