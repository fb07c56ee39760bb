"""Training in several processes. They import this module, so its imports are few."""

import time
from pathlib import Path

import pytest
import torch
from demo.together import Team, together
from torch import nn


@pytest.mark.long
def test_gradients_are_summed_over_all_processes(tmp_path: Path) -> None:
    together(_learn_along, 2, tmp_path)
    for rank in range(2):
        share, total, gradient, other = torch.load(tmp_path / f"{rank}.pt")
        assert share == [rank, rank + 2, rank + 4]
        assert total == 1
        assert gradient.tolist() == [3, 3]
        assert other.tolist() == [0]


def _learn_along(team: Team, folder: Path) -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    (used * (team.rank + 1)).sum().backward()
    team.add_gradients([used, unused])
    found = (list(team.share(range(6))), team.total(team.rank), used.grad, unused.grad)
    torch.save(found, folder / f"{team.rank}.pt")


@pytest.mark.long
def test_a_process_that_fails_ends_the_training() -> None:
    with pytest.raises(Exception, match="expected failure"):
        together(_fail, 2)


def _fail(team: Team) -> None:
    if team.leads:
        raise ValueError("expected failure")
    time.sleep(600)
