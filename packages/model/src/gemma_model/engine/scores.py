"""Log probabilities of the model's own distribution."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gemma_model.protocol import LEAST_LOGPROB, Scores


def score(logits: Tensor, ids: Sequence[int], top: int) -> list[Scores]:
    """What the model thought of tokens.

    Args:
        logits: ``[tokens, vocab]`` fp32, as the model gave them.
        ids: of the tokens.
        top: so many of the likeliest are told as well.
    """
    if not ids:
        return []
    sums = logits.logsumexp(dim=-1, keepdim=True)
    chosen = torch.tensor(ids, device=logits.device).unsqueeze(1)
    own = (logits.gather(1, chosen) - sums).clamp(min=LEAST_LOGPROB).squeeze(1).tolist()
    values, places = logits.topk(min(top, logits.shape[1]), dim=-1)
    best = zip(places.tolist(), (values - sums).clamp(min=LEAST_LOGPROB).tolist(), strict=True)
    return [Scores(x, tuple(zip(*pairs, strict=True))) for x, pairs in zip(own, best, strict=True)]
