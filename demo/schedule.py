"""What the stages share: the learning rate over time, rows in random order, and a tower's whole loop."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from demo.progress import Progress

Losses = Callable[[Tensor], dict[str, Tensor]]
"""Row numbers of a pool → what the tower and its heads get wrong of them, by name."""


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
    """Train a tower together with its heads, until there are no more rows.

    Args:
        tower: is left in training mode.
        heads: are left ready for use.
        losses: of a batch.
        rows: one batch for each step.
        rate: of learning, at its highest.
        progress: knows how many steps there are, and is told each loss.
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
