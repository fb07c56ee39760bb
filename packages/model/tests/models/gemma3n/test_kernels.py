"""The CPU's kernels against PyTorch's own operations; and what happens where they cannot be had."""

import logging
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gemma_model.cpu import kernels
from gemma_model.layers.attention import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.layers.linear import gelu
from gemma_model.layers.mlp import MLP
from gemma_model.models.gemma3n.decoder import Decoder
from gemma_model.models.gemma3n.fused_layers import suits
from gemma_model.models.gemma3n.nested_models import Slice
from gemma_model.weights import open_weights

ops = kernels.ops
SLOTS, LENGTH = 4, 96


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    if not kernels.load():
        pytest.skip("no compiler or no processor for the kernels here; the log says which")


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(ours: Tensor, expected: Tensor) -> None:
    """Equal up to fp32's rounding, or to one rounding to bf16."""
    rough = ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), expected.float(), rtol=1e-2 if rough else 1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 16, 64, 65, 300])
@pytest.mark.parametrize(
    ("columns", "depth"), [(1, 16), (6, 32), (49, 64), (1000, 256), (33, 24), (5, 20), (50, 1072)]
)
def test_a_product_is_what_pytorch_makes_of_it(
    dtype: torch.dtype, rows: int, columns: int, depth: int
) -> None:
    x, w = random(rows, depth, dtype=dtype), random(columns, depth, seed=1, dtype=dtype)
    ours, exact = ops.linear(x, w), F.linear(x.double(), w.double())
    assert ours.dtype == dtype
    torch.testing.assert_close(
        ours.double(), exact, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-4
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("depth", [24, 48, 96, 1072])  # less than what meets at once, and more
@pytest.mark.parametrize("rows", [2, 3, 5, 7, 8, 9, 16, 31, 70, 128, 129, 200])
def test_a_row_of_a_product_does_not_depend_on_the_others(dtype: torch.dtype, rows: int, depth: int) -> None:
    x, w = random(rows, depth, dtype=dtype), random(101, depth, seed=1, dtype=dtype)
    together = ops.linear(x, w)
    assert torch.equal(together, torch.cat([ops.linear(row.unsqueeze(0), w) for row in x]))


@pytest.mark.parametrize("layout", ["rows of a longer matrix", "transposed"])
@pytest.mark.parametrize("rows", [3, 130])
def test_a_product_with_a_part_of_a_matrix(rows: int, layout: str) -> None:
    part = {"rows of a longer matrix": random(40, 96)[:, :48], "transposed": random(48, 40).t()}[layout]
    x = random(rows, 48, seed=1)
    close(ops.linear(x, part), F.linear(x.double(), part.double()).float())


@pytest.mark.parametrize("cap", [0.0, 30.0])
@pytest.mark.parametrize("rows", [3, 64, 65, 75, 200])
def test_logits_are_fp32_and_softly_capped(cap: float, rows: int) -> None:
    x, w = random(rows, 64, dtype=torch.bfloat16), random(101, 64, seed=1, dtype=torch.bfloat16)
    raw = F.linear(x.float(), w.float())
    close(ops.logits(x, w, cap), torch.tanh(raw / cap) * cap if cap else raw)


def test_the_cap_holds_however_far_a_logit_goes() -> None:
    raw = torch.cat((torch.linspace(-200, 200, 4001), torch.tensor([-1e30, -1e4, 0.0, 1e4, 1e30])))
    x, w = torch.eye(1, 16), F.pad(raw.unsqueeze(1), (0, 15))
    exact = (torch.tanh(raw.double() / 30) * 30).float()
    torch.testing.assert_close(ops.logits(x, w, 30.0)[0], exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms(dtype: torch.dtype) -> None:
    x, y, w = (random(5, 64, seed=seed, dtype=dtype) for seed in range(3))
    weight = w[0]
    normed = F.rms_norm(y.float(), (64,), weight.float(), 1e-6)
    close(ops.rms_norm(y, weight, 1e-6), normed)
    close(ops.add_norm(x, y, weight, 1e-6), x.float() + normed)


@pytest.mark.parametrize("deviations", [float("nan"), 1.6449])
def test_the_gates(deviations: float) -> None:
    gate_up = random(3, 2 * 128)
    gate, up = gate_up.chunk(2, dim=-1)
    if deviations == deviations:  # noqa: PLR0124 - not NaN
        spread, mean = torch.std_mean(gate, dim=-1, keepdim=True, correction=0)
        gate = torch.relu(gate - (mean + spread * deviations))
    close(ops.gated(gate_up, deviations), gelu(gate) * up)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_a_sparse_layer_reads_few_neurons_and_computes_the_same(rows: int, dtype: torch.dtype) -> None:
    gate_up, down = random(2, 256, 64, seed=1, dtype=dtype), random(256, 64, seed=2, dtype=dtype)
    x = random(rows, 64, dtype=dtype)
    exact = MLP(gate_up.double(), down.double().t(), sparsity=0.95)(x.double())
    ours = ops.sparse_feed_forward(x, gate_up[0], gate_up[1], down, NormalDist().inv_cdf(0.95))
    torch.testing.assert_close(
        ours.double(), exact, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-3
    )


def weights_of(model: Any, dtype: torch.dtype, compiled: bool) -> Decoder:
    decoder = Decoder(model.config, open_weights(model.folder, "cpu", dtype, compiled))
    offset, hard = model.towers.hard_embeddings()
    decoder.embed.set_hard(offset, hard.to(dtype))
    return decoder


def step(decoder: Decoder, cache: Any, slots: list[int], positions: list[int], ids: list[int]) -> Tensor:
    x = decoder.embed(torch.tensor(ids))
    rows = decoder.per_layer_table.rows(ids, x)
    logits = decoder(x, rows, [Batch(slots, positions, 1)], cache, 1)
    assert logits is not None
    return logits


def cache_of(model: Any, dtype: torch.dtype, rewind: int = 0) -> KVCache:
    cache = KVCache(model.config, SLOTS, LENGTH, rewind, "cpu", dtype)
    for number, layer in enumerate(cache.layers):
        layer.copy_(random(*layer.shape, seed=number))
    return cache


def answers(model: Any, decoder: Decoder, dtype: torch.dtype) -> Iterator[Tensor]:
    """Logits of three rows for some steps, in slots out of order, across the end of every ring."""
    cache, positions = cache_of(model, dtype), [2, 40, 29]
    for turn in range(12):
        yield step(decoder, cache, [3, 0, 2], positions, [7 + turn, 90 - turn, 20])
        positions = [position + 1 for position in positions]


def test_decoding_equals_the_definition_in_pytorch(model: Any) -> None:
    plain, fast = (weights_of(model, torch.float32, compiled) for compiled in (False, True))
    assert suits(model.config)
    pairs = zip(answers(model, plain, torch.float32), answers(model, fast, torch.float32), strict=True)
    for expected, ours in pairs:
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("sliced", [False, True])
@pytest.mark.parametrize("length", [3, 40, 70])
def test_a_prompt_equals_the_definition_in_pytorch(model: Any, length: int, sliced: bool) -> None:
    half = Slice(tuple(size // 2 for size in model.config.intermediate_size))
    logits = []
    for compiled in (False, True):
        decoder = weights_of(model, torch.float32, compiled)
        decoder, cache = decoder.sliced(half) if sliced else decoder, cache_of(model, torch.float32)
        for start in (0, length):  # the second chunk looks back at the first
            ids = list(range(start + 5, start + 5 + length))
            x, rows = decoder.embed(torch.tensor(ids)), decoder.per_layer_table.rows(ids, cache.layers[0])
            logits.append(decoder(x, rows, [Batch([2], [start], length)], cache, 1))
    for expected, ours in zip(logits[:2], logits[2:], strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)


def test_decoding_a_slice_equals_the_definition_in_pytorch(model: Any) -> None:
    half = Slice(tuple(size // 2 for size in model.config.intermediate_size))
    plain, fast = (weights_of(model, torch.float32, compiled).sliced(half) for compiled in (False, True))
    for expected, ours in zip(
        answers(model, plain, torch.float32), answers(model, fast, torch.float32), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)


def test_a_row_of_a_batch_is_bit_for_bit_the_row_alone(model: Any) -> None:
    decoder = weights_of(model, torch.bfloat16, compiled=True)
    slots, positions, ids = [0, 1, 2, 3], [50, 60, 5, 33], [7, 8, 9, 10]
    together = step(decoder, cache_of(model, torch.bfloat16), slots, positions, ids)
    for row in range(SLOTS):
        alone = step(decoder, cache_of(model, torch.bfloat16), [slots[row]], [positions[row]], [ids[row]])
        assert torch.equal(alone[0], together[row])


def prompt(decoder: Decoder, cache: Any, batches: list[Batch], keep: int) -> Tensor:
    ids = [7 + i for batch in batches for i in range(batch.tokens)]
    x = decoder.embed(torch.tensor(ids))
    logits = decoder(x, decoder.per_layer_table.rows(ids, x), batches, cache, keep)
    assert logits is not None
    return logits


@pytest.mark.parametrize("rewind", [0, 30])  # without, a prompt overwrites what its first tokens still see
@pytest.mark.parametrize("start", [0, 11, 60])
def test_a_prompt_is_bit_for_bit_its_tokens_one_after_the_other(model: Any, start: int, rewind: int) -> None:
    decoder, length = weights_of(model, torch.bfloat16, compiled=True), 30
    whole, stepwise = (cache_of(model, torch.bfloat16, rewind) for _ in range(2))
    logits = prompt(decoder, whole, [Batch([2], [start], length)], length)
    for number, together in enumerate(logits):
        assert torch.equal(step(decoder, stepwise, [2], [start + number], [7 + number])[0], together)
    for ours, theirs in zip(whole.layers, stepwise.layers, strict=True):
        assert torch.equal(ours, theirs)


def test_all_but_the_keys_and_values_is_done_for_the_last_token_alone(model: Any) -> None:
    decoder, batch = weights_of(model, torch.bfloat16, compiled=True), Batch([2], [60], 30)
    caches = [cache_of(model, torch.bfloat16) for _ in range(3)]
    wanted = prompt(decoder, caches[0], [batch], 30)[-1:]
    assert torch.equal(prompt(decoder, caches[1], [batch], 1), wanted)
    x = decoder.embed(torch.arange(7, 37))
    rows = decoder.per_layer_table.rows(range(7, 37), x)
    assert decoder(x, rows, [batch], caches[2], 0) is None
    for first, *others in zip(*(cache.layers for cache in caches), strict=True):
        assert all(torch.equal(first, other) for other in others)


def test_prompts_together_are_bit_for_bit_each_alone(model: Any) -> None:
    decoder = weights_of(model, torch.bfloat16, compiled=True)
    batches = [Batch([3], [0], 20), Batch([0], [40], 1), Batch([1], [7], 30)]
    together = prompt(decoder, cache_of(model, torch.bfloat16, 30), batches, 1)
    for batch, row in zip(batches, together, strict=True):
        assert torch.equal(prompt(decoder, cache_of(model, torch.bfloat16, 30), [batch], 1)[0], row)


@pytest.mark.parametrize(
    ("compiler", "says"),
    [("", "no C++ compiler"), ("false", "not usable"), ("no-such-compiler", "not usable")],
)
def test_without_a_compiler_it_says_so_and_goes_on(
    compiler: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("PATH", "" if not compiler else "/usr/bin:/bin")
    monkeypatch.setattr(kernels, "FOLDER", tmp_path)
    with caplog.at_level(logging.INFO):
        assert not kernels.load.__wrapped__()
    assert says in caplog.text
    assert not list(tmp_path.glob("*.so"))


def test_what_was_compiled_is_taken_at_the_next_start_and_by_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_(command: tuple[str, ...], **_rest: object) -> None:
        commands.append(command)
        Path(command[command.index("-o") + 1]).touch()

    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(kernels, "FOLDER", tmp_path)
    monkeypatch.setattr("subprocess.run", compile_)
    first = kernels._built("a", "AVX2")
    assert kernels._built("a", "AVX2") == first
    assert len(commands) == 1
    assert kernels._built("b", "AVX2") != first
    assert len(commands) == 2
