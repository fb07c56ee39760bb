"""A plan to token ids: the tensors of the engine, and nothing that it would have to remember of a request."""

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gemma_model.engine.memory import check_fits, free_host_memory
from gemma_model.engine.sampler import Draw, sample, uniform
from gemma_model.engine.scheduler import Decode, Outcome, Plan, Prefill
from gemma_model.nn.attention import Batch
from gemma_model.nn.cache import KVCache, bytes_per_slot
from gemma_model.nn.config import TextConfig
from gemma_model.nn.device import describe, pick
from gemma_model.nn.text import Decoder
from gemma_model.nn.towers import Towers
from gemma_model.nn.weights import open_weights
from gemma_model.protocol import Generation, Media, MediaSpan
from gemma_model.settings import Settings
from gemma_wire import InvalidRequest

log = logging.getLogger(__name__)
STORED = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.bfloat16}


class SoftTokens:
    """What a tower made of a medium, the most recent ones, by content.

    Args:
        encode: runs the tower.
        budget: bytes.
    """

    def __init__(self, encode: Callable[[Media], Tensor], budget: int) -> None:
        self._encode, self._budget, self._size = encode, budget, 0
        self._kept: OrderedDict[tuple[str, bytes], Tensor] = OrderedDict()

    def of(self, media: Media) -> Tensor:
        """``[soft tokens, hidden]``."""
        key = media.modality, media.digest
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        tokens = self._encode(media)
        self._kept[key] = tokens
        self._size += tokens.nbytes
        while self._size > self._budget and len(self._kept) > 1:
            self._size -= self._kept.popitem(last=False)[1].nbytes
        return tokens


class Runner:
    """Runs plans.

    Args:
        decoder: with its weights.
        cache: all slots.
        soft_tokens: what stands for pictures and sounds.
    """

    def __init__(self, decoder: Decoder, cache: KVCache, soft_tokens: SoftTokens) -> None:
        self._decoder, self._cache, self._soft_tokens = decoder, cache, soft_tokens

    @torch.inference_mode()
    def run(self, plan: Plan, generations: Mapping[int, Generation]) -> Outcome:
        """Run every sequence of the plan."""
        logits: list[Tensor] = []
        draws: dict[int, Draw] = {}
        failed: dict[int, str] = {}
        for prefill in plan.prefills:
            generation = generations[prefill.number]
            try:
                x = self._input(prefill, generation)
            except Exception as error:  # a tower choked on what it was given; nobody else has to pay for it
                log.exception("the input of request %d failed", prefill.number)
                failed[prefill.number] = f"{type(error).__name__}: {error}"
                continue
            given = self._prefill(prefill, generation, x)
            if given is not None:
                logits.append(given)
                draws[prefill.number] = _draw(generation, 0, prefill.may_stop)
        if plan.decodes:
            logits.append(self._decode(plan.decodes))
            for decode in plan.decodes:
                draws[decode.number] = _draw(generations[decode.number], decode.generated, decode.may_stop)
        ids = sample(torch.cat(logits), list(draws.values())) if draws else []
        return Outcome(dict(zip(draws, ids, strict=True)), failed)

    def _input(self, prefill: Prefill, generation: Generation) -> Tensor:
        """Embeddings of a chunk, ``[tokens, hidden]``, soft tokens in their places."""
        x = self._embed(generation.prompt.token_ids[prefill.start : prefill.stop])
        for span in generation.prompt.spans:
            self._place(x, span, prefill)
        return x

    def _prefill(self, prefill: Prefill, generation: Generation, x: Tensor) -> Tensor | None:
        ids = generation.prompt.token_ids[prefill.start : prefill.stop]
        batch = Batch([prefill.slot], [prefill.start], len(ids))
        rows = self._decoder.per_layer_table.rows(ids, x)
        return self._decoder(x, rows, batch, self._cache, keep=int(prefill.ends_prompt))

    def _place(self, x: Tensor, span: MediaSpan, prefill: Prefill) -> None:
        """Put those soft tokens of a medium into ``x`` that belong to the chunk."""
        first = max(span.start, prefill.start)
        last = min(span.start + span.length, prefill.stop)
        if first < last:
            tokens = self._soft_tokens.of(span.media)
            if tokens.shape[0] != span.length:
                raise ValueError(f"{tokens.shape[0]} soft tokens for a span of {span.length}")
            x[first - prefill.start : last - prefill.start] = tokens[first - span.start : last - span.start]

    def _decode(self, decodes: tuple[Decode, ...]) -> Tensor:
        ids = tuple(decode.token_id for decode in decodes)
        x = self._embed(ids)
        batch = Batch([decode.slot for decode in decodes], [decode.position for decode in decodes], 1)
        logits = self._decoder(x, self._decoder.per_layer_table.rows(ids, x), batch, self._cache, keep=1)
        assert logits is not None, "they were asked for"
        return logits

    def _embed(self, ids: tuple[int, ...]) -> Tensor:
        return self._decoder.embed(torch.tensor(ids, device=self._decoder.embed.table.device))


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
        self.dtype = _dtype(settings.dtype, config)
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
        self.runner = Runner(decoder, cache, SoftTokens(encode, settings.media_cache_bytes))

    def _load(
        self, checkpoint: Path, config: Mapping[str, Any], settings: Settings
    ) -> tuple[Decoder, Callable[[Media], Tensor]]:
        weights = open_weights(checkpoint, self.device, self.dtype)
        decoder = Decoder(self.config, weights, settings.ple == "device")
        encode: Callable[[Media], Tensor] = _refuse
        if "text_config" in config:
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


def _draw(generation: Generation, place: int, may_stop: bool) -> Draw:
    sampling, banned = generation.sampling, () if may_stop else generation.stop_token_ids
    if sampling.temperature == 0:
        return Draw(banned=banned)
    assert sampling.seed is not None, "the engine draws a seed for those who gave none"
    random = uniform(sampling.seed, place)
    return Draw(sampling.temperature, sampling.top_k, sampling.top_p, random, banned)


def _encode(towers: Towers, media: Media) -> Tensor:
    features = torch.from_numpy(media.features)
    return towers.see(features.unsqueeze(0))[0] if media.modality == "image" else towers.hear(features)


def _refuse(media: Media) -> Tensor:
    raise InvalidRequest(f"the checkpoint has no tower for {media.modality}", "messages")


def _dtype(name: str, config: Mapping[str, Any]) -> torch.dtype:
    """As asked, or as stored; what is stored in fp16 runs in bf16."""
    stored = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    dtype = STORED.get(stored if name == "auto" else name)
    if dtype is None:
        raise InvalidRequest(f"{stored!r} is not supported, only {' and '.join(STORED)} are", "config.dtype")
    return dtype
