"""humming-kernels' own packing of weights, compiled for the CPU; the threads of a block run in turn."""

import ctypes
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

SHIM = """
#pragma once
#include <cassert>
#include <cstdint>
struct Index { uint32_t x, y, z; };
static Index threadIdx, blockIdx, gridDim, blockDim;
#define __global__
#define __shared__ static
#define __syncthreads()
#define CUDA_INLINE static inline
#define PRAGMA_UNROLL
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define CEIL_DIV(a, b) (((a) + (b) - 1) / (b))
constexpr uint32_t static_next_power_of_2(uint32_t v) {
  return v <= 1 ? 1 : 2 * static_next_power_of_2((v + 1) / 2);
}
"""

MAIN = """
#include <humming/kernel/process.cuh>
template <uint32_t kBits, bool kSigned>
static void repack(const uint32_t *in, uint32_t *out, uint32_t n, uint32_t k) {
  gridDim = {n / 64, k / 64, 1};
  blockDim = {32, 1, 1};
  for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++)
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
      for (int pass = 0; pass < 2; pass++)  // after the first, the shared memory is complete
        for (threadIdx.x = 0; threadIdx.x < 32; threadIdx.x++)
          weight_repack_nk<kBits, 16, true, kSigned, false, false, 0>(in, out, nullptr, n, k, n, k, 3);
}
extern "C" {
void repack4(const uint32_t *in, uint32_t *out, uint32_t n, uint32_t k) { repack<4, false>(in, out, n, k); }
void repack8(const uint32_t *in, uint32_t *out, uint32_t n, uint32_t k) { repack<8, true>(in, out, n, k); }
}
"""


def compile_repack(folder: Path) -> Callable[[Tensor, int], Tensor]:
    """Compile the packing into a folder.

    Returns:
        int32 ``[out, in x bits / 32]`` and bits → the library's format.
    """
    shim = folder / "humming/utils/all.cuh"
    shim.parent.mkdir(parents=True)
    shim.write_text(SHIM)
    (folder / "main.cpp").write_text(MAIN)
    spec = find_spec("humming")
    assert spec is not None
    assert spec.origin is not None
    library = folder / "repack.so"
    includes = f"-I{folder}", f"-I{Path(spec.origin).parent / 'include'}"
    subprocess.run(
        ["g++", "-O1", "-std=c++17", "-fPIC", "-shared", "-w", *includes, folder / "main.cpp", "-o", library],
        check=True,
    )
    loaded = ctypes.CDLL(str(library))

    def repack(words: Tensor, bits: int) -> Tensor:
        out, width = words.shape[0], words.shape[1] * 32 // bits
        packed = torch.empty(width // 16, out * 16 * bits // 32, dtype=torch.int32)
        pointers = ctypes.c_void_p(words.data_ptr()), ctypes.c_void_p(packed.data_ptr())
        loaded[f"repack{bits}"](*pointers, out, width)
        return packed

    return repack
