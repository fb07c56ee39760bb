"""Log probabilities of the model's own distribution."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gemma_model.protocol import LEAST_LOGPROB, Scores


def score(
    logits: Tensor, ids: Sequence[int], top: int, token_ids: Sequence[int] = (), with_ranks: bool = False
) -> list[Scores]:
    """What the model thought of tokens.

    Args:
        logits: ``[tokens, vocab]`` fp32, as the model gave them.
        ids: of the tokens.
        top: so many of the likeliest are told as well.
        token_ids: the tokens that are told instead of the likeliest.
        with_ranks: tell each token's rank too.
    """
    if not ids:
        return []
    sums = logits.logsumexp(dim=-1, keepdim=True)
    chosen = logits.gather(1, torch.tensor(ids, device=logits.device).unsqueeze(1))
    own = (chosen - sums).clamp(min=LEAST_LOGPROB).squeeze(1).tolist()
    ranks = ((logits > chosen).sum(dim=-1) + 1).tolist() if with_ranks else [None] * len(ids)
    values, places = _told(logits, top, token_ids)
    pairs = zip(places.tolist(), (values - sums).clamp(min=LEAST_LOGPROB).tolist(), strict=True)
    tops = (tuple(zip(*pair, strict=True)) for pair in pairs)
    return list(map(Scores, own, tops, ranks))


def _told(logits: Tensor, top: int, token_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Logits and ids of the tokens that are told beside each, ``[tokens, how many]``."""
    if not token_ids:
        return logits.topk(min(top, logits.shape[1]), dim=-1)
    places = torch.tensor(token_ids, device=logits.device).expand(logits.shape[0], -1)
    return logits.gather(1, places), places
