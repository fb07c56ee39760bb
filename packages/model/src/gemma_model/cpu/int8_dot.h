// Products of blocks of small integers (see packed_format.h) and inputs of int8, for each instruction set. Sums are
// exact, so all instruction sets give the same.
//
// ColumnFloats and ColumnSums are BLOCK_COLUMNS floats and 32-bit integers. A BlockIntegers<I, R> is a block that was
// read for R rows of the input.

#pragma once

#include "packed_format.h"

#define ALWAYS_INLINE __attribute__((always_inline))

#ifdef __aarch64__
#include "int8_dot_neon.h"
#else
#include "int8_dot_x86.h"
#endif
