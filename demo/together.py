"""Training in several processes of one thread each.

A model this small is mostly small operations, which several threads of one process share badly: two processes
learn from 1.6 times as many tokens a second as one with two threads (docs/log.md).
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Team:
    """The processes that train one model; each has all of its weights and learns from a part of each step.

    Args:
        rank: which of them this is; 0 is the one that tells and keeps.
        size: how many they are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that prints and writes files."""
        return self.rank == 0

    def share(self, every: Sequence[Kind]) -> Sequence[Kind]:
        """What this process takes of something that all have."""
        return every[self.rank :: self.size]

    def total(self, number: float) -> float:
        """The sum of what all processes say."""
        return self._sum(torch.tensor([number], dtype=torch.float64)).item()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the sum of all gradients, and all processes the same parameters in the end."""
        there = [p for p in parameters if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in there]
        added = self._sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for parameter, part in zip(there, added.split([p.numel() for p in there]), strict=True):
            parameter.grad = part.view_as(parameter)

    def _sum(self, values: Tensor) -> Tensor:
        if self.size > 1:
            distributed.all_reduce(values)
        return values


def together(work: Callable[..., None], size: int, *arguments: Any) -> None:
    """Call ``work(team, *arguments)`` in so many new processes at once, and wait for all of them.

    Raises:
        torch.multiprocessing.ProcessRaisedException: of the first that failed; the others are ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        spawn(_member, (work, size, f"file://{folder}/meet", arguments), nprocs=size)


def _member(rank: int, work: Callable[..., None], size: int, meet: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=size)
    distributed.barrier()  # whoever fails at once shall not be told as "no connection" by the others
    work(Team(rank, size), *arguments)
    distributed.destroy_process_group()  # one that fails ends first: by its exception, not by those it causes
