"""What every stage's loop shares: the learning rate over time, and rows in random order."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor


def schedule(
    optimizer: torch.optim.Optimizer, steps: int, warm: int = 100
) -> torch.optim.lr_scheduler.LambdaLR:
    """A linear warm-up, then half a cosine down to a fiftieth."""

    def rate(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, steps - warm)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(done * math.pi))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def batches(rows: int, size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """As many batches of row numbers as there are steps; each row once before any comes again."""
    done = 0
    while True:
        for batch in torch.randperm(rows, generator=generator).split(size):
            if done == steps:
                return
            if len(batch) == size:
                yield batch
                done += 1
