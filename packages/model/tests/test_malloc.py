import resource
import subprocess
import sys

LOOP = """
import resource
import statistics
from gemma_model.malloc import tune
if {tuned}:
    tune()
import torch

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    before = faults()
    torch.ones(64, 262_400)
    return faults() - before

print(int(statistics.median(step() for _ in range(64))))
"""


def faults(tuned: bool) -> int:
    """Pages that the kernel has to find for the logits of 64 rows, the median of many steps.

    The first few may not fit into the place of the one before: the C library wants room for their alignment.
    """
    told = subprocess.run(
        [sys.executable, "-c", LOOP.format(tuned=tuned)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return int(told.stdout)


def test_the_logits_of_a_step_need_no_new_pages() -> None:
    logits = 64 * 262_400 * 4 / resource.getpagesize()
    assert faults(tuned=True) < logits / 100
    assert faults(tuned=False) > logits / 2
