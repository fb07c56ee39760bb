"""Log probabilities of the model's own distribution."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gemma_model.engine_types import MIN_LOGPROB, PositionLogprobs


def compute_logprobs(
    logits: Tensor, ids: Sequence[int], top: int, token_ids: Sequence[int] = (), with_ranks: bool = False
) -> list[PositionLogprobs]:
    """The log probabilities at each position.

    Args:
        logits: ``[tokens, vocab]`` fp32, as the model returned them.
        ids: the token at each position.
        top: also return this many of the most likely tokens.
        token_ids: return these tokens instead of the most likely ones.
        with_ranks: also return the rank of each token.
    """
    if not ids:
        return []
    sums = logits.logsumexp(dim=-1, keepdim=True)
    chosen = logits.gather(1, torch.tensor(ids, device=logits.device).unsqueeze(1))
    own = (chosen - sums).clamp(min=MIN_LOGPROB).squeeze(1).tolist()
    ranks = ((logits > chosen).sum(dim=-1) + 1).tolist() if with_ranks else [None] * len(ids)
    values, top_ids = _select(logits, top, token_ids)
    pairs = zip(top_ids.tolist(), (values - sums).clamp(min=MIN_LOGPROB).tolist(), strict=True)
    tops = (tuple(zip(*pair, strict=True)) for pair in pairs)
    return list(map(PositionLogprobs, own, tops, ranks))


def _select(logits: Tensor, top: int, token_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Logits and ids of the tokens that are reported at each position, ``[tokens, how many]``."""
    if not token_ids:
        return logits.topk(min(top, logits.shape[1]), dim=-1)
    ids = torch.tensor(token_ids, device=logits.device).expand(logits.shape[0], -1)
    return logits.gather(1, ids), ids
