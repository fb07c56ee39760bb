"""Who has numbers that are infinite or NaN: such a sequence fails, and nobody else."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from gemma_model.engine.chooser import describe_failure
from gemma_model.engine.plan import Prefill, Row
from gemma_model.engine.sequence import Name
from gemma_model.layers.kv_cache import KVCache


class NotFiniteError(ArithmeticError):
    """The model's numbers for a sequence are infinite or NaN."""

    def __init__(self) -> None:
        super().__init__("the model computed infinity or NaN for this request")


def failed_prefills(prefills: Iterable[Prefill], cache: KVCache) -> dict[Name, str]:
    """The failures of those whose keys or values are not finite; chunks without logits do not tell otherwise.

    Args:
        prefills: that have run.
        cache: all slots.
    """
    return {
        name: describe_failure(name, NotFiniteError())
        for prefill in prefills
        if not cache.is_finite(prefill.slot, prefill.start, prefill.stop)
        for name in prefill.names
    }


def finite_rows(logits: Tensor, rows: Sequence[Row]) -> tuple[Tensor, list[Row], dict[Name, str]]:
    """The rows whose logits are finite, with these, and the failures of the others.

    Where a row's last hidden state has a NaN, all its logits are NaN, so one of them tells.

    Args:
        logits: ``[rows, vocab]`` fp32.
        rows: who gets a token.
    """
    broken = logits[:, 0].isfinite().logical_not().tolist()
    if not any(broken):
        return logits, list(rows), {}
    good = [place for place, fails in enumerate(broken) if not fails]
    names = [row.name for row, fails in zip(rows, broken, strict=True) if fails]
    failures = {name: describe_failure(name, NotFiniteError()) for name in names}
    return logits[good], [rows[place] for place in good], failures
