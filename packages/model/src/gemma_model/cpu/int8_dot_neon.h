// Products of small integers for NEON: see int8_dot.h. Processors with the dot product instructions (ARMv8.2) add four
// products at once; those with i8mm (ARMv8.6) multiply two rows by two columns, eight products each.

#pragma once

#include <arm_neon.h>

#include <utility>

namespace {

using ColumnFloats = float32x4x2_t;
using ColumnSums = int32x4x2_t;

inline ColumnFloats repeat(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }
inline ColumnFloats load_columns(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
inline ColumnFloats load_columns(const at::Half* p) {
  const float16x8_t x = vld1q_f16(reinterpret_cast<const float16_t*>(p));
  return {vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x)};
}
inline void store_columns(float* p, ColumnFloats x) { vst1q_f32(p, x.val[0]), vst1q_f32(p + 4, x.val[1]); }
inline ColumnFloats to_floats(ColumnSums x) { return {vcvtq_f32_s32(x.val[0]), vcvtq_f32_s32(x.val[1])}; }
inline ColumnFloats multiply(ColumnFloats a, ColumnFloats b) {
  return {vmulq_f32(a.val[0], b.val[0]), vmulq_f32(a.val[1], b.val[1])};
}
inline ColumnFloats fused_multiply_add(ColumnFloats a, ColumnFloats b, ColumnFloats c) {
  return {vfmaq_f32(c.val[0], a.val[0], b.val[0]), vfmaq_f32(c.val[1], a.val[1], b.val[1])};
}
inline ColumnSums subtract(ColumnSums x, int32_t y) {
  return {vsubq_s32(x.val[0], vdupq_n_s32(y)), vsubq_s32(x.val[1], vdupq_n_s32(y))};
}

template <class I, int R>
class BlockIntegers {
 public:
  static constexpr int ADDED = 0;
#ifdef __ARM_FEATURE_MATMUL_INT8
  static constexpr bool PAIRS = R > 1;  // of rows are multiplied at once
#else
  static constexpr bool PAIRS = false;
#endif

  explicit BlockIntegers(const uint8_t* block) {
    if constexpr (I::BITS == 4) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const uint8x16_t both = vld1q_u8(block + 16 * i);
        const int low = i / 2 * 4 + i % 2;
        w_[low] = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
        w_[low + 2] = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
      }
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) w_[i] = vld1q_s8(reinterpret_cast<const int8_t*>(block) + 16 * i);
    }
    if constexpr (PAIRS)
#pragma GCC unroll 4
      for (int i = 0; i < 16; i += 4) join_depths(w_ + i);
  }

  // The products of COUNT vectors of the block, from `first` on, and the same elements of a row of the input, which
  // are at input(r). Calls work(r, their sum for each column) for each row.
  template <int COUNT, typename Input, typename Work>
  void dot(int first, const Input& input, const Work& work) const {
    if constexpr (PAIRS) {
#pragma GCC unroll 2
      for (int r = 0; r < R; r += 2) {
        const bool both = r + 1 < R;
        const auto [one, two] = dot_pair<COUNT>(w_ + 2 * first, input(r), input(r + both));
        work(r, one);
        if (both) work(r + 1, two);
      }
    } else {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) work(r, dot_row<COUNT>(w_ + 2 * first, input(r)));
    }
  }

 private:
  // Two vectors of eight columns x four elements become four of two columns x eight elements.
  static void join_depths(int8x16_t* w) {
    const int32x4_t a = vreinterpretq_s32_s8(w[0]), b = vreinterpretq_s32_s8(w[1]);
    const int32x4_t c = vreinterpretq_s32_s8(w[2]), d = vreinterpretq_s32_s8(w[3]);
    w[0] = vreinterpretq_s8_s32(vzip1q_s32(a, c)), w[1] = vreinterpretq_s8_s32(vzip2q_s32(a, c));
    w[2] = vreinterpretq_s8_s32(vzip1q_s32(b, d)), w[3] = vreinterpretq_s8_s32(vzip2q_s32(b, d));
  }

#ifdef __ARM_FEATURE_MATMUL_INT8
  template <int COUNT>
  static std::pair<ColumnSums, ColumnSums> dot_pair(const int8x16_t* w, const int8_t* one, const int8_t* two) {
    int32x4_t sums[4];  // of two columns each: column 0 x one, column 0 x two, column 1 x one, column 1 x two
#pragma GCC unroll 4
    for (auto& sum : sums) sum = vdupq_n_s32(0);
#pragma GCC unroll 4
    for (int i = 0; i < COUNT / 2; ++i) {
      const int8x16_t x = vcombine_s8(vld1_s8(one + 8 * i), vld1_s8(two + 8 * i));
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) sums[c] = vmmlaq_s32(sums[c], w[4 * i + c], x);
    }
    return {ColumnSums{vuzp1q_s32(sums[0], sums[1]), vuzp1q_s32(sums[2], sums[3])},
            ColumnSums{vuzp2q_s32(sums[0], sums[1]), vuzp2q_s32(sums[2], sums[3])}};
  }
#else
  template <int COUNT>
  static std::pair<ColumnSums, ColumnSums> dot_pair(const int8x16_t*, const int8_t*, const int8_t*);
#endif

#ifdef __ARM_FEATURE_DOTPROD
  template <int COUNT>
  static ColumnSums dot_row(const int8x16_t* w, const int8_t* x) {
    ColumnSums sum{vdupq_n_s32(0), vdupq_n_s32(0)};
    const auto add_four = [&]<int... V>(const int8x16_t* w, int8x16_t four, std::integer_sequence<int, V...>) {
      ((sum.val[0] = vdotq_laneq_s32(sum.val[0], w[2 * V], four, V),
        sum.val[1] = vdotq_laneq_s32(sum.val[1], w[2 * V + 1], four, V)), ...);
    };
#pragma GCC unroll 2
    for (int v = 0; v < COUNT; v += 4) add_four(w + 2 * v, vld1q_s8(x + 4 * v), std::make_integer_sequence<int, 4>());
    return sum;
  }
#else
  template <int COUNT>
  static ColumnSums dot_row(const int8x16_t* w, const int8_t* x) {
    int32x4_t sums[4];  // of two columns each: two of column 0, two of column 1
#pragma GCC unroll 4
    for (auto& sum : sums) sum = vdupq_n_s32(0);
#pragma GCC unroll 8
    for (int v = 0; v < COUNT; ++v) {
      const int8x8_t four = vreinterpret_s8_s32(vld1_dup_s32(reinterpret_cast<const int32_t*>(x + 4 * v)));
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        const int8x16_t own = w[2 * v + h];
        sums[2 * h] = vpadalq_s16(sums[2 * h], vmull_s8(vget_low_s8(own), four));
        sums[2 * h + 1] = vpadalq_s16(sums[2 * h + 1], vmull_s8(vget_high_s8(own), four));
      }
    }
    return {vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3])};
  }
#endif

  int8x16_t w_[16];  // vector v of the block is w_[2 v] and w_[2 v + 1], unless `join_depths` has changed that
};

}  // namespace
