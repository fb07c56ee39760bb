// Vectors of floats for each instruction set: AVX512, AVX2 or NEON. The products of small integers are in int8_dot.h;
// no other file depends on the instruction set, except for sizes.

#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <cstring>
#include <type_traits>

namespace {

using Vec = at::vec::Vectorized<float>;
constexpr int64_t LANES = Vec::size();

inline Vec load(const float* p) { return Vec::loadu(p); }
inline void store(float* p, Vec x) { x.store(p); }

}  // namespace

#ifdef __aarch64__
#include "simd_neon.h"
#else
#include "simd_x86.h"
#endif
