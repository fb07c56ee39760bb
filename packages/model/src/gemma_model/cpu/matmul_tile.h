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

#if defined(CPU_CAPABILITY_AVX512) && defined(__AVX512BF16__)
#define HAS_BF16_DOT

// sum + the products of pairs of bf16: each lane adds two of them, in fp32.
inline Vec add_pairs(Vec sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }

// The type that inputs are converted to before they are multiplied with weights of type T.
template <typename T>
using Input = T;
#else
template <typename T>
using Input = float;
#endif

// The even (H = 0) or odd (H = 1) elements of the next two vectors of bf16, by a mask or a shift; without AVX512, and
// of fp32, the first or second of the two vectors. The other operand must be in the same order: see `prepare_input`.
template <int H, typename T>
inline Vec widen_half(const T* p) {
#ifdef CPU_CAPABILITY_AVX512
  if constexpr (std::is_same_v<T, at::BFloat16>) {
    const __m512i both = _mm512_loadu_si512(p);
    return _mm512_castsi512_ps(H ? _mm512_and_si512(both, _mm512_set1_epi32(int(0xffff0000)))
                                 : _mm512_slli_epi32(both, 16));
  }
#endif
  return load(p + H * LANES);
}

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
#ifdef CPU_CAPABILITY_AVX512
    if constexpr (std::is_same_v<T, at::BFloat16>) {
      const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
      const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
      for (int64_t at = 0; at < count; at += depth)
        for (int64_t k = 0; k + 2 * LANES <= depth; k += 2 * LANES) {
          float* place = wide.data() + at + k;
          const __m512 first = _mm512_loadu_ps(place), second = _mm512_loadu_ps(place + LANES);
          _mm512_storeu_ps(place, _mm512_permutex2var_ps(first, even, second));
          _mm512_storeu_ps(place + LANES, _mm512_permutex2var_ps(first, odd, second));
        }
    }
#endif
    return wide;
  }
}

#ifdef CPU_CAPABILITY_AVX512
// Transposes a block of 8 x 8.
inline void transpose(const float* from, float* to, int64_t stride) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(from + 8 * i);
  for (int i = 0; i < 8; i += 2)
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]), b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      a[i + 2 * j] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0x44);
      a[i + 2 * j + 1] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0xee);
    }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
  }
}
#endif

// The sum of the lanes of each of N vectors. The order of the additions does not depend on N.
template <int N>
inline void reduce_lanes(const Vec* sums, float* y) {
  int at = 0;
#ifdef CPU_CAPABILITY_AVX512
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (; at + 8 <= N; at += 8) {  // eight vectors at once; lanes 8 apart are added first, then 4, 2 and 1 apart
    __m512 s[4];
    for (int i = 0; i < 4; ++i) {
      const __m512 a = sums[at + 2 * i], b = sums[at + 2 * i + 1];
      s[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    }
    for (int i = 0; i < 2; ++i)
      s[i] = _mm512_add_ps(_mm512_shuffle_f32x4(s[2 * i], s[2 * i + 1], 0x88),
                           _mm512_shuffle_f32x4(s[2 * i], s[2 * i + 1], 0xdd));
    const __m512d first = _mm512_castps_pd(s[0]), second = _mm512_castps_pd(s[1]);
    const __m512 pairs = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(first, second)),
                                       _mm512_castpd_ps(_mm512_unpackhi_pd(first, second)));
    const __m512 all = _mm512_add_ps(_mm512_shuffle_ps(pairs, pairs, 0x88), _mm512_shuffle_ps(pairs, pairs, 0xdd));
    _mm256_storeu_ps(y + at, _mm512_castps512_ps256(_mm512_permutexvar_ps(order, all)));
  }
#endif
#ifdef CPU_CAPABILITY_AVX2
  for (; at + 8 <= N; at += 8) {  // lanes 4 apart are added first, then 2 and 1
    __m256 s[4], t[2];
    for (int i = 0; i < 4; ++i) {
      const __m256 a = sums[at + 2 * i], b = sums[at + 2 * i + 1];
      s[i] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    }
    for (int i = 0; i < 2; ++i)
      t[i] = _mm256_add_ps(_mm256_shuffle_ps(s[2 * i], s[2 * i + 1], 0x44),
                           _mm256_shuffle_ps(s[2 * i], s[2 * i + 1], 0xee));
    const __m256 all = _mm256_add_ps(_mm256_shuffle_ps(t[0], t[1], 0x88), _mm256_shuffle_ps(t[0], t[1], 0xdd));
    _mm256_storeu_ps(y + at, _mm256_permutevar8x32_ps(all, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  }
#endif
  for (; at < N; ++at) y[at] = sums[at].reduce_add();
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
  reduce_lanes<C * R>(sums, y);
}

}  // namespace
