"""Finds sequences whose numbers are infinite or NaN: such a sequence fails, and no other."""

from collections.abc import Iterable, Sequence
from itertools import islice

from torch import Tensor

from gemma_model.engine.sequence import SeqId
from gemma_model.engine.step_plan import Prefill, TokenRow
from gemma_model.engine.step_result import log_failure
from gemma_model.layers.kv_cache import KVCache


class NotFiniteError(ArithmeticError):
    """The model's numbers for a sequence are infinite or NaN."""

    def __init__(self) -> None:
        super().__init__("the model computed infinity or NaN for this request")


def failed_prefills(prefills: Iterable[Prefill], cache: KVCache) -> dict[SeqId, str]:
    """The failures of prefills whose keys or values are not finite; a chunk may have no logits to check.

    Args:
        prefills: that have run.
        cache: of all slots.
    """
    return {
        seq_id: log_failure(seq_id, NotFiniteError())
        for prefill in prefills
        if not cache.is_finite(prefill.slot, prefill.start, prefill.stop)
        for seq_id in prefill.seq_ids
    }


def finite_rows(logits: Tensor, rows: Sequence[TokenRow]) -> tuple[Tensor, list[TokenRow], dict[SeqId, str]]:
    """The sequences all of whose logits are finite, with these logits, and the failures of the others.

    Args:
        logits: of all rows, ``[logits rows, vocab]`` fp32.
        rows: the sequences that get tokens.
    """
    broken = broken_rows(logits, [row.logits_rows for row in rows])
    if not any(broken):
        return logits, list(rows), {}
    good = [place for place, fails in enumerate(broken) if not fails]
    kept = [fails for row, fails in zip(rows, broken, strict=True) for _ in range(row.logits_rows)]
    failures = {
        row.seq_id: log_failure(row.seq_id, NotFiniteError())
        for row, fails in zip(rows, broken, strict=True)
        if fails
    }
    finite = logits[[place for place, fails in enumerate(kept) if not fails]]
    return finite, [rows[place] for place in good], failures


def broken_rows(logits: Tensor, sizes: Sequence[int]) -> list[bool]:
    """Which sequences have logits that are not finite.

    If a row's last hidden state has a NaN, all its logits are NaN, so it is enough to check one.

    Args:
        logits: of all sequences, ``[logits rows, vocab]`` fp32.
        sizes: the number of rows of each.
    """
    broken = iter(logits[:, 0].isfinite().logical_not().tolist())
    return [sum(islice(broken, size)) > 0 for size in sizes]
