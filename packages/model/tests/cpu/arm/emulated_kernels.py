"""The C++ kernels compiled for 64-bit ARM, as operations that run in a process under emulation."""

import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from gemma_model.cpu.instruction_set import InstructionSet
from gemma_model.cpu.kernels import SOURCE

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
PACKAGES = "g++-aarch64-linux-gnu and qemu-user"
"""Debian's packages with these."""
HERE = Path(__file__).parent
FLAGS = ("-O1", "-std=c++20", "-w", "-static")
TIMEOUT = 600  # seconds
DTYPES = {torch.uint8: 0, torch.int8: 1, torch.int64: 4, torch.float32: 6, torch.bfloat16: 15}
"""Their numbers in c10/core/ScalarType.h."""
NONE, INTEGER, FLOAT, TENSOR, SAME_TENSOR, TRANSPOSED, LIST = range(7)
"""``Kind`` in torch_stand_in.h."""


def missing_tools() -> list[str]:
    """Those that are not installed."""
    return [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]


def build(target: InstructionSet, folder: Path) -> Path:
    """Compile the kernels as a program, with torch_stand_in.h for each header of libtorch that they include.

    Args:
        target: the instruction set.
        folder: for the program and the headers.
    """
    sources = (SOURCE, *SOURCE.parent.rglob("*.h"))
    included = {name for path in sources for name in re.findall(r"#include <(\w+/[^>]+)>", path.read_text())}
    for name in included:
        if not name.startswith("ATen/cpu/vec/"):  # these need no library
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text('#include "torch_stand_in.h"\n')
    program = folder / "kernels"
    paths = (folder, HERE, SOURCE.parent, Path(torch.__file__).parent / "include")
    command = (COMPILER, *FLAGS, *target.flags, *(f"-I{path}" for path in paths), str(HERE / "main.cpp"))
    subprocess.run((*command, "-o", str(program)), check=True, timeout=TIMEOUT)
    return program


class EmulatedKernels:
    """Has the operations of ``kernels.ops`` as methods.

    Args:
        process: of the program.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        assert process.stdout
        self._in, self._out = process.stdin, process.stdout

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        return lambda *arguments: self._call(name, arguments)

    def _call(self, name: str, arguments: Sequence[object]) -> Tensor:
        tensors: list[Tensor] = []
        self._in.write(struct.pack("q", len(name)) + name.encode())
        for argument in arguments:
            self._in.write(b"".join(_packed(argument, tensors)))
        self._in.flush()
        result = _read_tensor(self._out)
        for tensor in tensors:
            tensor.copy_(_read_tensor(self._out))
        return result


def _packed(value: object, tensors: list[Tensor]) -> Iterator[bytes]:
    """The bytes of a value; tensors are added to the list."""
    if (
        isinstance(value, Tensor)
        and value.dim() == 2
        and not value.is_contiguous()
        and value.t().is_contiguous()
    ):
        yield struct.pack("q", TRANSPOSED)  # the kernels rely on the order of the memory
        yield from _packed(value.t(), tensors)
    elif isinstance(value, Tensor):
        if (place := _place_of(value, tensors)) is not None:
            yield struct.pack("qq", SAME_TENSOR, place)
            return
        tensors.append(value)
        yield struct.pack(f"{3 + value.dim()}q", TENSOR, DTYPES[value.dtype], value.dim(), *value.shape)
        yield _bytes_of(value.contiguous()).numpy().tobytes()
    elif isinstance(value, list | tuple):
        yield struct.pack("qq", LIST, len(value))
        for each in value:
            yield from _packed(each, tensors)
    elif isinstance(value, float):
        yield struct.pack("qd", FLOAT, value)
    elif isinstance(value, int):
        yield struct.pack("qq", INTEGER, value)
    else:
        assert value is None
        yield struct.pack("q", NONE)


def _place_of(tensor: Tensor, tensors: list[Tensor]) -> int | None:
    """The place of a tensor with the same memory."""

    def key(x: Tensor) -> tuple[object, ...]:
        return x.data_ptr(), x.shape, x.stride(), x.dtype

    return next((place for place, other in enumerate(tensors) if key(other) == key(tensor)), None)


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.flatten().view(torch.uint8)


def _read_tensor(file: IO[bytes]) -> Tensor:
    dtype, dim = struct.unpack("2q", _read(file, 16))
    result = torch.empty(
        struct.unpack(f"{dim}q", _read(file, 8 * dim)), dtype={v: k for k, v in DTYPES.items()}[dtype]
    )
    if result.numel():
        _bytes_of(result).copy_(torch.frombuffer(bytearray(_read(file, result.nbytes)), dtype=torch.uint8))
    return result


def _read(file: IO[bytes], count: int) -> bytes:
    read = file.read(count)
    if len(read) < count:
        raise RuntimeError("the emulated program has ended; its message is above")
    return read


@contextmanager
def run(program: Path, cpu: str) -> Iterator[EmulatedKernels]:
    """The operations of a program.

    Args:
        program: made by ``build``.
        cpu: a processor that the emulator knows.
    """
    command = (EMULATOR, "-cpu", cpu, str(program))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield EmulatedKernels(process)
        finally:
            process.kill()
