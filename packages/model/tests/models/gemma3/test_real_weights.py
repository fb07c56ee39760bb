"""The real Gemma 3 270M against transformers with the same weights: text, perplexity, chunks, batches."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from tokenizers import Tokenizer
from torch import Tensor

from gemma_model.gguf_checkpoint import prepare_folder
from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.gemma3.decoder import Gemma3Decoder
from gemma_model.models.loader import load_model
from gemma_model.models.model import Model
from gemma_model.settings import Settings

from . import real_270m
from .conftest import load
from .real_270m import RealModel

PAGE = json.loads(Path(__file__).with_name("page.json").read_text(encoding="utf-8"))
IDS: list[int] = PAGE["ids"]  # more than the sliding window of 512
NEW = 24
BEGINNINGS = (20, 133, 560)  # tokens of the page that are continued
pytestmark = pytest.mark.timeout(900)  # the weights are downloaded and dequantised


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RealModel:
    return real_270m.read(real_270m.locate(tmp_path_factory.mktemp("270m")))


@pytest.fixture(scope="module")
def dequantized(real: RealModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the dequantised weights."""
    folder = tmp_path_factory.mktemp("dequantized")
    real.oracle.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def decoder(dequantized: Path) -> Gemma3Decoder:
    return load(dequantized)[1]


@pytest.fixture(scope="module")
def expected(real: RealModel) -> Tensor:
    """Transformers' logits of the page."""
    with torch.inference_mode():
        logits: Tensor = real.oracle(input_ids=torch.tensor([IDS])).logits[0]
    return logits


@pytest.fixture(scope="module")
def continued(real: RealModel) -> list[list[int]]:
    """Transformers' greedy continuation of each beginning of the page."""
    return [
        real.oracle.generate(
            torch.tensor([IDS[:length]]), max_new_tokens=NEW, do_sample=False, eos_token_id=None
        )[0, length:].tolist()
        for length in BEGINNINGS
    ]


def run(model: Model, cache: KVCache, start: int, stop: int, keep: int = 0, slot: int = 0) -> Tensor:
    """A chunk of the page in a slot."""
    ids, batch = IDS[start:stop], Batch([slot], [start], stop - start)
    logits = model.prefill(ids, model.embed(ids), [batch], cache, keep)
    return torch.empty(0) if logits is None else logits


def cache_of(model: Model, slots: int = 1) -> KVCache:
    return KVCache(model.cache_spec, slots, 1024, dtype=model.dtype)


def perplexity(logits: Tensor) -> float:
    return float(F.cross_entropy(logits[:-1], torch.tensor(IDS[1:])).exp())


def greedy(
    model: Model, cache: KVCache, last: Tensor, slots: list[int], lengths: list[int]
) -> list[list[int]]:
    """Continue rows together, each from the logits of its last token."""
    said: list[list[int]] = [[] for _ in slots]
    for step in range(NEW):
        ids: list[int] = last.argmax(dim=-1).tolist()
        for row, token in zip(said, ids, strict=True):
            row.append(token)
        if step + 1 < NEW:
            last = model.decode(ids, slots, [length + step for length in lengths], cache)
    return said


def test_the_ids_are_the_text(real: RealModel) -> None:
    assert real.text(IDS) == "<bos>" + PAGE["text"]


def test_perplexity_equals_transformers(decoder: Gemma3Decoder, expected: Tensor) -> None:
    logits = run(decoder, cache_of(decoder), 0, len(IDS), keep=len(IDS))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-3)
    assert perplexity(logits) == pytest.approx(perplexity(expected), rel=1e-4)


def test_greedy_text_equals_transformers(
    decoder: Gemma3Decoder, real: RealModel, continued: list[list[int]]
) -> None:
    """Three rows of different lengths, decoded together; each prompt came in chunks."""
    cache, slots = cache_of(decoder, slots=4), [3, 0, 2]
    last = []
    for slot, length in zip(slots, BEGINNINGS, strict=True):
        for start in range(0, length, 100):
            stop = min(start + 100, length)
            logits = run(decoder, cache, start, stop, int(stop == length), slot)
        last.append(logits)
    said = greedy(decoder, cache, torch.cat(last), slots, list(BEGINNINGS))
    assert [real.text(row) for row in said] == [real.text(row) for row in continued]


@pytest.mark.parametrize("chunk", [1, 100, 513])
def test_chunks_and_a_reused_prefix_agree_with_one_pass(
    decoder: Gemma3Decoder, expected: Tensor, chunk: int
) -> None:
    """The ring of the sliding layers has wrapped; the cache holds another continuation of the same prefix."""
    cache, prefix, end = cache_of(decoder), 500, 520 if chunk == 1 else len(IDS)
    run(decoder, cache, 0, prefix)
    other = list(reversed(IDS[: end - prefix]))[:12]
    decoder.prefill(other, decoder.embed(other), [Batch([0], [prefix], len(other))], cache, 0)
    pieces = [
        run(decoder, cache, start, min(start + chunk, end), keep=min(chunk, end - start))
        for start in range(prefix, end, chunk)
    ]
    torch.testing.assert_close(torch.cat(pieces), expected[prefix:end], rtol=0, atol=1e-3)


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cpu_kernels_agree(dequantized: Path, expected: Tensor, dtype: torch.dtype) -> None:
    _, decoder = load(dequantized, dtype, cpu_kernels=True)
    logits = run(decoder, cache_of(decoder), 0, len(IDS), keep=len(IDS))
    assert perplexity(logits) == pytest.approx(perplexity(expected), rel=0.005)
    same: Any = (logits.argmax(dim=-1) == expected.argmax(dim=-1)).float().mean()
    assert same > (0.999 if dtype == torch.float32 else 0.95)


@pytest.fixture(scope="module")
def prepared(real: RealModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that represents the GGUF file."""
    return prepare_folder(real.file, tmp_path_factory.mktemp("prepared"))


def test_the_tokenizer_of_the_gguf_file_gives_the_ids(prepared: Path) -> None:
    tokenizer = Tokenizer.from_file(str(prepared / "tokenizer.json"))
    assert tokenizer.encode(PAGE["text"], add_special_tokens=False).ids == IDS[1:]


def test_the_gguf_file_agrees_with_the_dequantised_weights(prepared: Path, expected: Tensor) -> None:
    """Without the kernels the same numbers are multiplied; with them inputs are rounded to int8."""
    settings = Settings(dtype="float32", compile="off")
    model = load_model(prepared, settings, torch.device("cpu")).model
    logits = run(model, cache_of(model), 0, len(IDS), keep=len(IDS))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-3)


@pytest.mark.usefixtures("cpu_kernels")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gguf_file_on_the_cpu_kernels_is_as_good(
    prepared: Path, expected: Tensor, dtype: Literal["float32", "bfloat16"]
) -> None:
    model = load_model(prepared, Settings(dtype=dtype), torch.device("cpu")).model
    logits = run(model, cache_of(model), 0, len(IDS), keep=len(IDS))
    assert perplexity(logits) == pytest.approx(perplexity(expected), rel=0.02)
