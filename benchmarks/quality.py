"""How much forms of a model differ: their distributions of next tokens, and the demo model's exam.

python -m benchmarks.quality REFERENCE FORM [FORM ...] [--exam 100]

A form is a folder of a checkpoint, or FOLDER@int8 and FOLDER@int4, which set GEMMA_QUANTIZE. All forms
need the tokenizer of the reference.
"""

import argparse
import asyncio
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from benchmarks.quality_texts import TEXTS
from benchmarks.stack import serving
from demo.evaluate import evaluate
from tokenizers import Tokenizer
from torch import Tensor

from gemma_model.checkpoint import find_folder
from gemma_model.device import pick_device
from gemma_model.layers.attention_metadata import Batch
from gemma_model.layers.kv_cache import KVCache
from gemma_model.models.loader import load_model
from gemma_model.settings import Settings

Quantize = Literal["none", "int8", "int4"]


@dataclass(frozen=True)
class Form:
    """A form of a model.

    Args:
        name: of its checkpoint.
        quantize: ``GEMMA_QUANTIZE``.
    """

    name: str
    quantize: Quantize = "none"

    @staticmethod
    def read(text: str) -> "Form":
        """``FOLDER`` or ``FOLDER@int8``."""
        name, _, quantize = text.partition("@")
        if quantize and quantize not in get_args(Quantize):
            raise argparse.ArgumentTypeError(f"{quantize!r} is none of {', '.join(get_args(Quantize))}")
        return Form(name, cast("Quantize", quantize or "none"))

    def __str__(self) -> str:
        """For the table."""
        label = Path(self.name).name
        return label if self.quantize == "none" else f"{label}, GEMMA_QUANTIZE={self.quantize}"


@dataclass(frozen=True)
class Difference:
    """Two forms on the same tokens.

    Args:
        divergence: the mean Kullback-Leibler divergence of the next token's distribution, in nats.
        highest: the 99th percentile of it.
        agreement: the share of positions with the same most probable token.
    """

    divergence: float
    highest: float
    agreement: float

    @staticmethod
    def between(reference: Tensor, other: Tensor) -> "Difference":
        """Of log-probabilities, ``[positions, vocab]``; minus infinity for a token that cannot come."""
        terms = reference.exp() * (reference - other)
        divergence = terms.masked_fill(reference == -torch.inf, 0.0).sum(-1).double()
        same = reference.argmax(-1) == other.argmax(-1)
        return Difference(
            divergence.mean().item(), divergence.quantile(0.99).item(), same.double().mean().item()
        )


def log_probabilities(form: Form, texts: list[list[int]]) -> tuple[Tensor, int]:
    """``[positions of all texts, vocab]`` fp32, and the bytes of the weights."""
    settings = Settings(model_name=form.name, towers="none", quantize=form.quantize, variants="none")
    device = pick_device(settings.device)
    loaded = load_model(find_folder(form.name, None), settings, device)
    model, length = loaded.model, max(map(len, texts))
    rows = []
    with torch.inference_mode():
        for ids in texts:
            cache = KVCache(model.cache_spec, 1, length, 0, device, model.dtype)
            batch = Batch([0], [0], len(ids))
            logits = model.prefill(ids, model.embed(ids), [batch], cache, len(ids))
            assert logits is not None, "all positions were asked for"
            rows.append(logits.float().log_softmax(-1).cpu())
    return torch.cat(rows), loaded.weight_bytes


def exam_result(form: Form, number: int) -> tuple[int, int]:
    """Right answers and questions, through the complete stack."""
    with serving(form.name, environment={"GEMMA_QUANTIZE": form.quantize}) as stack:
        results = asyncio.run(evaluate(stack.api, number, show=0))
    return sum(right for right, _ in results.values()), sum(of for _, of in results.values())


def exam_cell(right: int, of: int, reference: tuple[int, int]) -> str:
    """``93.1 % (-0.2)``: the share of right answers, and the points more than the reference's."""
    share, before = right / of, reference[0] / reference[1]
    standard_error = math.sqrt(share * (1 - share) / of)
    return f"{share:.1%} ({100 * (share - before):+.1f}; ± {100 * standard_error:.1f})"


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Form.read)
    parser.add_argument("forms", type=Form.read, nargs="+", metavar="FORM")
    parser.add_argument(
        "--exam", type=int, default=0, metavar="N", help="also the demo model's exam; N: see exam"
    )
    given: Any = parser.parse_args(argv)
    folder = find_folder(given.reference.name, None)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [tokenizer.encode(text).ids for text in TEXTS]
    reference, weights = log_probabilities(given.reference, texts)
    print(f"{len(reference):,} positions in {len(texts)} texts")
    asked = exam_result(given.reference, given.exam) if given.exam else None
    print("| form | weights | KL divergence | 99th percentile | same top token | exam |")
    print("| --- | --- | --- | --- | --- | --- |")
    own = f"{asked[0] / asked[1]:.1%} of {asked[1]:,}" if asked else "-"
    print(f"| {given.reference} | {weights / 1e6:.2f} MB | 0 | 0 | 100.0% | {own} |", flush=True)
    for form in given.forms:
        other, weights = log_probabilities(form, texts)
        found = Difference.between(reference, other)
        cell = exam_cell(*exam_result(form, given.exam), asked) if asked else "-"
        print(
            f"| {form} | {weights / 1e6:.2f} MB | {found.divergence:.4f} | {found.highest:.4f} | "
            f"{found.agreement:.1%} | {cell} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
