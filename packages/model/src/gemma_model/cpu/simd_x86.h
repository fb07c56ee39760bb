// Vectors of floats for AVX512 and AVX2: see simd.h.

#pragma once

namespace {

#ifdef CPU_CAPABILITY_AVX512
constexpr int REGISTERS = 32;
#else
constexpr int REGISTERS = 16;
#endif

// Reads LANES elements as fp32.
inline Vec load(const at::BFloat16* p) {
  Vec x;
  at::vec::load_to_float(p, x);
  return x;
}

inline Vec load(const at::Half* p) {
  Vec x;
  at::vec::load_to_float(p, x);
  return x;
}

inline Vec load_int8(const int8_t* p) {
#ifdef CPU_CAPABILITY_AVX512
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
#else
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#endif
}

// Writes LANES elements.
inline void store(at::BFloat16* p, Vec x) { at::vec::convert_from_float<at::BFloat16>(x, x).store(p, LANES); }

inline Vec exp(Vec x) { return x.exp(); }
inline Vec round_to_even(Vec x) { return x.round(); }

inline float sum_lanes(Vec x) { return x.reduce_add(); }

// The sum of the lanes of each of N vectors. The order of the additions does not depend on N.
template <int N>
inline void sum_lanes(const Vec* sums, float* y) {
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
  for (; at < N; ++at) y[at] = sum_lanes(sums[at]);
}

// The even (H = 0) or odd (H = 1) elements of the next two vectors of bf16, by a mask or a shift; without AVX512, and
// of fp32, the first or second of the two vectors. The other operand must be in the same order: see
// `order_as_widened`.
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

// Brings the elements of a row into the order in which `widen_half` reads elements of type T.
template <typename T>
void order_as_widened(float* row, int64_t depth) {
#ifdef CPU_CAPABILITY_AVX512
  if constexpr (std::is_same_v<T, at::BFloat16>) {
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (int64_t k = 0; k + 2 * LANES <= depth; k += 2 * LANES) {
      const __m512 first = _mm512_loadu_ps(row + k), second = _mm512_loadu_ps(row + k + LANES);
      _mm512_storeu_ps(row + k, _mm512_permutex2var_ps(first, even, second));
      _mm512_storeu_ps(row + k + LANES, _mm512_permutex2var_ps(first, odd, second));
    }
  }
#endif
}

// A vector that is read once and used often. With 16 registers GCC would read it from memory for each use, and the
// product would wait for that.
#ifdef CPU_CAPABILITY_AVX512
template <typename V>
inline V keep_in_register(V v) {
  return v;
}
#else
inline Vec keep_in_register(Vec v) {
  __m256 own = v;
  asm("" : "+x"(own));
  return own;
}
#endif

#if defined(CPU_CAPABILITY_AVX512) && defined(__AVX512BF16__)
#define HAS_BF16_DOT

// sum + the products of pairs of bf16: each lane adds two of them, in fp32.
inline Vec add_pairs(Vec sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
#endif

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

}  // namespace
