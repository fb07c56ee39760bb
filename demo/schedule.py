"""Learning rate schedule, random batches and the training loop of the towers."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from demo.progress import Progress

Losses = Callable[[Tensor], dict[str, Tensor]]
"""Computes the losses of rows of a pool, by name."""


def schedule(
    optimizer: torch.optim.Optimizer, steps: int, warm: int = 100
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then cosine decay to 2% of the peak."""

    def rate(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, steps - warm)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(done * math.pi))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def batches(rows: int, size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """One batch of row numbers for each step, shuffled in every epoch."""
    assert rows >= size, "a pool holds at least one batch"
    done = 0
    while True:
        for batch in torch.randperm(rows, generator=generator).split(size):
            if done == steps:
                return
            if len(batch) == size:
                yield batch
                done += 1


def train_tower(
    tower: nn.Module,
    heads: nn.Module,
    losses: Losses,
    rows: Iterator[Tensor],
    rate: float,
    progress: Progress,
) -> None:
    """Train a tower and its heads, one step for each batch of rows.

    Args:
        tower: stays in training mode.
        heads: are in evaluation mode afterwards.
        losses: computes the losses of a batch.
        rows: one batch for each step.
        rate: peak learning rate.
        progress: has the number of steps and reports the losses.
    """
    parameters = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.02, betas=(0.9, 0.98))
    rates = schedule(optimizer, progress.steps)
    tower.train()
    for step, batch in enumerate(rows):
        found = losses(batch)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(found.values())).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rates.step()
        progress.step(step, {name: loss.item() for name, loss in found.items()})
    heads.eval()
