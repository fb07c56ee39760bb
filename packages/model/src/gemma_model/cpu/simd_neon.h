// The functions of simd_x86.h for NEON, which all 64-bit ARM processors have. PyTorch's vectors of NEON compute some of
// them one lane after the other.

#pragma once

#include <arm_neon.h>

namespace {

constexpr int REGISTERS = 32;

inline Vec load(const at::BFloat16* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p)), 16));
}
inline Vec load(const at::Half* p) { return vcvt_f32_f16(vld1_f16(reinterpret_cast<const float16_t*>(p))); }
inline Vec load_int8(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
}

// Rounds to the nearest bf16, or to the even one of two; NaN stays NaN.
inline void store(at::BFloat16* p, Vec x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x), even = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(even, vdupq_n_u32(0x7fff)));
  const uint32x4_t number = vceqq_f32(x, x), nan = vdupq_n_u32(0x7fc00000);
  vst1_u16(reinterpret_cast<uint16_t*>(p), vshrn_n_u32(vbslq_u32(number, rounded, nan), 16));
}

inline Vec exp(Vec x) { return x.exp_u20(); }  // an error of at most two units in the last place
inline Vec round_to_even(Vec x) { return vrndnq_f32(x); }

// Adds lanes 0 and 1, lanes 2 and 3, and then both sums.
inline float sum_lanes(Vec x) { return vaddvq_f32(x); }

// The sum of the lanes of each of N vectors, in the same order.
template <int N>
inline void sum_lanes(const Vec* x, float* y) {
  int at = 0;
  for (; at + 4 <= N; at += 4)
    vst1q_f32(y + at, vpaddq_f32(vpaddq_f32(x[at], x[at + 1]), vpaddq_f32(x[at + 2], x[at + 3])));
  for (; at < N; ++at) y[at] = sum_lanes(x[at]);
}

template <int H, typename T>
inline Vec widen_half(const T* p) {
  if constexpr (std::is_same_v<T, at::BFloat16>) {
    const uint16x8_t both = vld1q_u16(reinterpret_cast<const uint16_t*>(p));
    return vreinterpretq_f32_u32(H ? vshll_high_n_u16(both, 16) : vshll_n_u16(vget_low_u16(both), 16));
  }
  return load(p + H * LANES);
}

template <typename T>
void order_as_widened(float*, int64_t) {}

template <typename V>
inline V keep_in_register(V v) {
  return v;
}

}  // namespace
