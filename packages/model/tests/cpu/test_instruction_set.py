"""The instruction set for which the kernels are compiled."""

import pytest

from gemma_model.cpu.instruction_set import (
    AVX2,
    AVX512,
    NEON,
    NEON_DOTPROD,
    NEON_I8MM,
    InstructionSet,
    instruction_set,
    of_arm,
)

ASIMDDP, I8MM = 1 << 20, 1 << 13


@pytest.mark.parametrize(
    ("hwcap", "hwcap2", "expected"),
    [(0xFF, 0, NEON), (ASIMDDP, 0, NEON_DOTPROD), (ASIMDDP, I8MM, NEON_I8MM), (0, I8MM, NEON)],
)
def test_of_an_arm_processor(hwcap: int, hwcap2: int, expected: InstructionSet) -> None:
    assert of_arm(hwcap, hwcap2) == expected


@pytest.mark.parametrize(
    ("capability", "expected"), [("AVX2", AVX2), ("AVX512", AVX512), ("DEFAULT", None), ("SVE256", None)]
)
def test_of_another_processor_is_that_of_pytorch(
    capability: str, expected: InstructionSet | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    assert instruction_set() == expected


def test_the_flags_name_the_architecture_and_pytorchs_capability() -> None:
    assert NEON_DOTPROD.flags == (
        "-march=armv8.2-a+dotprod",
        "-DCPU_CAPABILITY=DEFAULT",
        "-DCPU_CAPABILITY_DEFAULT",
    )
