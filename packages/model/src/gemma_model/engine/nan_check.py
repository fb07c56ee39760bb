"""Finds sequences whose numbers are infinite or NaN: such a sequence fails, and no other."""

from collections.abc import Iterable, Sequence

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
    """The rows whose logits are finite, with these logits, and the failures of the others.

    If a row's last hidden state has a NaN, all its logits are NaN, so it is enough to check one.

    Args:
        logits: ``[rows, vocab]`` fp32.
        rows: the sequences that get a token.
    """
    broken = logits[:, 0].isfinite().logical_not().tolist()
    if not any(broken):
        return logits, list(rows), {}
    good = [place for place, fails in enumerate(broken) if not fails]
    failures = {
        row.seq_id: log_failure(row.seq_id, NotFiniteError())
        for row, fails in zip(rows, broken, strict=True)
        if fails
    }
    return logits[good], [rows[place] for place in good], failures
