import resource
import subprocess
import sys

LOOP = """
import resource
from gemma_model.allocator import tune
if {tuned}:
    tune()
import torch

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(5):
    before = faults()
    torch.ones(16, 262_400)
print(faults() - before)
"""


def faults(tuned: bool) -> int:
    """Pages that the kernel had to find for the last of several tensors of the size of a step's logits."""
    told = subprocess.run(
        [sys.executable, "-c", LOOP.format(tuned=tuned)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return int(told.stdout)


def test_the_logits_of_a_step_need_no_new_pages() -> None:
    assert faults(tuned=True) < 2**24 / resource.getpagesize() / 100
