// Products of small integers for AVX2, and for AVX512-VNNI or AVX-VNNI where the processor has it: see int8_dot.h.

#pragma once

namespace {

using ColumnFloats = __m256;
using ColumnSums = __m256i;

inline ColumnFloats repeat(float x) { return _mm256_set1_ps(x); }
inline ColumnFloats load_columns(const float* p) { return _mm256_loadu_ps(p); }
inline ColumnFloats load_columns(const at::Half* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
inline void store_columns(float* p, ColumnFloats x) { _mm256_storeu_ps(p, x); }
inline ColumnFloats to_floats(ColumnSums x) { return _mm256_cvtepi32_ps(x); }
inline ColumnFloats multiply(ColumnFloats a, ColumnFloats b) { return _mm256_mul_ps(a, b); }
inline ColumnFloats fused_multiply_add(ColumnFloats a, ColumnFloats b, ColumnFloats c) {
  return _mm256_fmadd_ps(a, b, c);
}
inline ColumnSums subtract(ColumnSums x, int32_t y) { return _mm256_sub_epi32(x, _mm256_set1_epi32(y)); }

#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define HAS_INT8_DOT
inline __m256i add_int8_dot(__m256i sum, __m256i w, __m256i x) { return _mm256_dpbusd_epi32(sum, w, x); }
#elif defined(__AVXVNNI__)
#define HAS_INT8_DOT
inline __m256i add_int8_dot(__m256i sum, __m256i w, __m256i x) { return _mm256_dpbusd_avx_epi32(sum, w, x); }
#endif

template <class I, int R>
class BlockIntegers {
 public:
#ifdef HAS_INT8_DOT
  static constexpr int ADDED = I::BITS == 8 ? 128 : 0;  // to each integer: VNNI multiplies unsigned by signed ones
#else
  static constexpr int ADDED = 0;
#endif

  explicit BlockIntegers(const uint8_t* block) {
    const auto read = [&](int i) { return _mm256_loadu_si256((const __m256i*)(block + 32 * i)); };
    if constexpr (I::BITS == 4) {
      const __m256i mask = _mm256_set1_epi8(15);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const __m256i both = read(j);
        w_[2 * j] = _mm256_and_si256(both, mask);
        w_[2 * j + 1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
      }
    } else {
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) w_[j] = read(j);
      if constexpr (ADDED != 0)
        for (int j = 0; j < 8; ++j) w_[j] = _mm256_xor_si256(w_[j], _mm256_set1_epi8(char(0x80)));
    }
  }

  // The products of COUNT vectors of the block, from `first` on, and the same elements of a row of the input, which
  // are at input(r). Calls work(r, their sum for each column) for each row.
  template <int COUNT, typename Input, typename Work>
  void dot(int first, const Input& input, const Work& work) const {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) work(r, dot_row<COUNT>(w_ + first, input(r)));
  }

 private:
  template <int COUNT>
  static __m256i dot_row(const __m256i* w, const int8_t* x) {
    const auto broadcast = [&](int v) {
      int32_t four;
      std::memcpy(&four, x + 4 * v, 4);
      return _mm256_set1_epi32(four);
    };
    __m256i sum = _mm256_setzero_si256();
#ifdef HAS_INT8_DOT
#pragma GCC unroll 8
    for (int v = 0; v < COUNT; ++v) sum = add_int8_dot(sum, w[v], broadcast(v));
    return sum;
#else
    const __m256i ones = _mm256_set1_epi16(1);
    if constexpr (I::BITS == 4) {  // 8 vectors x 2 products of at most 15 x 127 fit into 16 bits
#pragma GCC unroll 8
      for (int v = 0; v < COUNT; ++v) sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w[v], broadcast(v)));
      return _mm256_madd_epi16(sum, ones);
    } else {  // 2 products of at most 128 x 127 fit into 16 bits
#pragma GCC unroll 8
      for (int v = 0; v < COUNT; ++v) {
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w[v]), _mm256_sign_epi8(broadcast(v), w[v]));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
      }
      return sum;
    }
#endif
  }

  __m256i w_[8];
};

}  // namespace
