"""The instruction set for which the C++ kernels are compiled."""

import ctypes
import platform
from dataclasses import dataclass

import torch

AT_HWCAP, AT_HWCAP2 = 16, 26
"""Entries of Linux' auxiliary vector (``getauxval``) that have bits for the instructions of a processor."""
HWCAP_ASIMDDP, HWCAP2_I8MM = 1 << 20, 1 << 13


@dataclass(frozen=True)
class InstructionSet:
    """An instruction set that the kernels use.

    Args:
        name: for the log.
        capability: in PyTorch's headers.
        march: the value of the compiler's ``-march``.
    """

    name: str
    capability: str
    march: str

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags for the compiler."""
        definitions = f"-DCPU_CAPABILITY={self.capability}", f"-DCPU_CAPABILITY_{self.capability}"
        return (f"-march={self.march}", *definitions)


AVX2, AVX512 = (InstructionSet(name, name, "native") for name in ("AVX2", "AVX512"))
NEON = InstructionSet("NEON", "DEFAULT", "armv8-a")
NEON_DOTPROD = InstructionSet("NEON with dotprod", "DEFAULT", "armv8.2-a+dotprod")
NEON_I8MM = InstructionSet("NEON with dotprod and i8mm", "DEFAULT", "armv8.2-a+dotprod+i8mm")


def instruction_set() -> InstructionSet | None:
    """The instruction set of this processor; ``None`` if there are no kernels for it."""
    if platform.system() == "Linux" and platform.machine() == "aarch64":
        getauxval = ctypes.CDLL(None).getauxval
        getauxval.restype, getauxval.argtypes = ctypes.c_ulong, (ctypes.c_ulong,)
        return of_arm(getauxval(AT_HWCAP), getauxval(AT_HWCAP2))
    return {"AVX2": AVX2, "AVX512": AVX512}.get(torch.backends.cpu.get_cpu_capability())


def of_arm(hwcap: int, hwcap2: int) -> InstructionSet:
    """The instruction set of a 64-bit ARM processor with these bits in the auxiliary vector."""
    if not hwcap & HWCAP_ASIMDDP:
        return NEON
    return NEON_I8MM if hwcap2 & HWCAP2_I8MM else NEON_DOTPROD
