// Functions of vectors, and loops over rows: what all other files use.
//
// Tensors are bf16 or fp32; every sum is computed in fp32.

#pragma once

#include "simd.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <atomic>
#include <cmath>

namespace {

using at::Tensor;

constexpr int64_t GRAIN = 1 << 15;  // fewer elements are not worth another thread

// Calls the lambda with `scalar_t` as the type of the tensor: fp32 or bf16.
#define FOR_DTYPE(tensor, ...)                        \
  AT_DISPATCH_SWITCH((tensor).scalar_type(), "gemma", \
                     AT_DISPATCH_CASE(at::kFloat, __VA_ARGS__) AT_DISPATCH_CASE(at::kBFloat16, __VA_ARGS__))

template <typename T>
void store(T* to, const float* from, int64_t count) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, Vec::loadu(from + i));
  for (; i < count; ++i) to[i] = T(from[i]);
}

// GELU in its tanh form.
inline Vec gelu(Vec x) {
  const Vec inner = (x + x * x * x * Vec(0.044715f)) * Vec(0.7978845608028654f);
  return x / (Vec(1.0f) + exp(inner * Vec(-2.0f)));  // (1 + tanh(i)) / 2 = 1 / (1 + exp(-2 i))
}

// The sum of a[i] * b[i]; `width` is a multiple of LANES.
template <typename A, typename B>
float dot(const A* a, const B* b, int64_t width) {
  Vec sum(0.0f);
  for (int64_t i = 0; i < width; i += LANES) sum = at::vec::fmadd(load(a + i), load(b + i), sum);
  return sum_lanes(sum);
}

// 1 / sqrt(mean(x^2) + eps).
template <typename T>
float inverse_rms(const T* x, int64_t width, double eps) {
  return 1.0f / std::sqrt(dot(x, x, width) / float(width) + float(eps));
}

// Calls `work(row)` for each row; on several threads if there is enough to do.
template <typename Work>
void parallel_rows(int64_t rows, int64_t width, const Work& work) {
  at::parallel_for(0, rows, std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, width)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) work(row);
  });
}

// Calls `work(begin, end)` for pieces of [0, count) of `piece` elements. A thread that is done takes the next piece.
// With equal shares, as at::parallel_for makes them, one thread is late whenever the system gives its core to another
// process (Triton and the gateway, at each token).
template <typename Work>
void parallel_dynamic(int64_t count, int64_t piece, const Work& work) {
  std::atomic<int64_t> next{0};
  const int64_t pieces = (count + piece - 1) / piece;
  at::parallel_for(0, std::min<int64_t>(at::get_num_threads(), pieces), 1, [&](int64_t, int64_t) {
    for (int64_t begin; (begin = next.fetch_add(piece)) < count;) work(begin, std::min(begin + piece, count));
  });
}

}  // namespace
