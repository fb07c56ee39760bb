"""Data-parallel training in several processes of one thread each.

A model of this size consists of small operations, which several threads do not speed up. Two processes train
on 1.6 times as many tokens per second as one process with two threads (docs/log.md).
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
    """The processes that train one model. Each has all weights and trains on a part of each batch.

    Args:
        rank: of this process; rank 0 prints and writes files.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that prints and writes files."""
        return self.rank == 0

    def share(self, every: Sequence[Kind]) -> Sequence[Kind]:
        """The part of a sequence that this process uses."""
        return every[self.rank :: self.size]

    def total(self, number: float) -> float:
        """The sum of the numbers of all processes."""
        return self._sum(torch.tensor([number], dtype=torch.float64)).item()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """All-reduce: replace the gradients in every process by their sum over all processes."""
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
    """Call ``work(team, *arguments)`` in ``size`` new processes, and wait for all of them.

    Raises:
        torch.multiprocessing.ProcessRaisedException: a process failed; the others were ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        spawn(_member, (work, size, f"file://{folder}/meet", arguments), nprocs=size)


def _member(rank: int, work: Callable[..., None], size: int, meet: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=size)
    distributed.barrier()  # otherwise an early failure is reported as a connection error of the others
    work(Team(rank, size), *arguments)
    distributed.destroy_process_group()  # not in a finally: the first exception must be the cause
