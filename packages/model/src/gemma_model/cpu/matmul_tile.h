// The innermost loops of matrix products: tiles of sums that are kept in registers.
//
// bf16 operands are multiplied by the processor's own instruction where there is one (AVX512-BF16); otherwise they
// are converted to fp32 first. The additions of one element of a product are always done in the same order, whatever
// the number of rows, so that a row of a batch is bit for bit the row alone.

#pragma once

#include "vec.h"

#include <type_traits>
#include <vector>

namespace {

constexpr int64_t ROW_BLOCK = 64;         // rows that use a weight while it is in the cache
constexpr int64_t STRIP = 48;             // columns of a product that one thread computes at a time
constexpr int64_t PREFETCH_COLUMNS = 24;  // columns of a product whose weights are prefetched while others are used

// A matrix with contiguous rows. The rows may be parts of longer ones: `stride` elements lie between their
// beginnings.
template <typename T>
struct Matrix {
  const T* data;
  int64_t rows, depth, stride;

  Matrix(const T* data, int64_t rows, int64_t depth, int64_t stride)
      : data(data), rows(rows), depth(depth), stride(stride) {}
  explicit Matrix(const Tensor& w) : Matrix(w.const_data_ptr<T>(), w.size(0), w.size(1), w.stride(0)) {}
};

// The type that inputs are converted to before they are multiplied with weights of type T.
#ifdef HAS_BF16_DOT
template <typename T>
using Input = T;
#else
template <typename T>
using Input = float;
#endif

// The elements of x in the form that a product with weights of type T needs: unchanged bf16 if the processor
// multiplies bf16; otherwise fp32, in the order in which `widen_half` reads weights of type T.
template <typename T>
std::vector<Input<T>> prepare_input(const Tensor& x) {
  const Tensor in = x.contiguous();
  const int64_t count = in.numel(), depth = in.size(-1);
  if constexpr (std::is_same_v<Input<T>, at::BFloat16>) {
    TORCH_CHECK(in.scalar_type() == at::kBFloat16, "inputs of bf16 weights are bf16");
    const auto* from = in.const_data_ptr<at::BFloat16>();
    return {from, from + count};
  } else {
    std::vector<float> wide(count);
    FOR_DTYPE(in, [&] {
      const auto* from = in.const_data_ptr<scalar_t>();
      for (int64_t i = 0; i < count; i += LANES) load(from + i).store(wide.data() + i);
    });
    for (int64_t at = 0; at < count; at += depth) order_as_widened<T>(wide.data() + at, depth);
    return wide;
  }
}

// R rows of x (see `prepare_input`) times C rows of w -> y [C, R]. Both are read along their depth. The first group
// of rows that uses these rows of w prefetches later ones.
template <int R, int C, typename T>
inline void tile(const Matrix<T>& w, int64_t first, const Input<T>* x, float* y, bool is_first = true) {
  Vec sums[C * R];
  for (auto& sum : sums) sum = Vec(0.0f);
  const T* rows = w.data + first * w.stride;
  const auto add = [&](int64_t k, const auto& weight_of, const auto& input_of, const auto& sum_of) {
    decltype(weight_of(rows)) weights[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) weights[c] = weight_of(rows + c * w.stride + k);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto input = input_of(x + r * w.depth + k);
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sums[c * R + r] = sum_of(sums[c * R + r], weights[c], input);
    }
  };
  const auto prefetch = [&](int64_t k) {  // into the L2 cache: the L1 cache has no room for them yet
    if (is_first)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) __builtin_prefetch(rows + (c + PREFETCH_COLUMNS) * w.stride + k, 0, 2);
  };
  int64_t k = 0;
#ifdef HAS_BF16_DOT
  if constexpr (std::is_same_v<Input<T>, at::BFloat16>) {
    const auto whole = [](const T* p) { return _mm512_loadu_si512(p); };
    const auto half = [](const T* p) { return _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i*)p)); };
    for (; k + 2 * LANES <= w.depth; k += 2 * LANES) prefetch(k), add(k, whole, whole, add_pairs);
    if (k < w.depth) add(k, half, half, add_pairs);
  }
#endif
  const auto fused = [](Vec sum, Vec weight, Vec input) { return at::vec::fmadd(weight, input, sum); };
  if constexpr (std::is_same_v<Input<T>, float>) {
    const auto input = [](const float* p) { return Vec::loadu(p); };
    for (; k + 2 * LANES <= w.depth; k += 2 * LANES) {
      prefetch(k);
      add(k, [](const T* p) { return widen_half<0>(p); }, input, fused);
      add(k + LANES, [](const T* p) { return widen_half<1>(p - LANES); }, input, fused);
    }
    if (k < w.depth) add(k, [](const T* p) { return load(p); }, input, fused);
  }
  sum_lanes<C * R>(sums, y);
}

}  // namespace
