// Products of packed matrices (see packed_format.h). Inputs are quantised to int8, in blocks of BLOCK_DEPTH with one
// scale each, so that sums within a block are exact integers. With few rows the time is that of reading the weights.
//
// The additions of one element are always done in the same order, so that a row of a batch is bit for bit the row alone.

#pragma once

#include "matmul.h"
#include "packed_format.h"

#include <array>
#include <limits>
#include <numeric>
#include <vector>

namespace {

constexpr int64_t PACKED_STRIP = 48;     // columns of a product that one thread computes at a time
constexpr int64_t PREFETCH_BYTES = 1024;  // of the weights, before they are used
constexpr float SMALLEST_INPUT = 1e-30f;   // a block without larger elements counts as zero: 1 / step must be finite

#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define HAS_INT8_DOT
inline __m256i add_int8_dot(__m256i sum, __m256i w, __m256i x) { return _mm256_dpbusd_epi32(sum, w, x); }
#elif defined(__AVXVNNI__)
#define HAS_INT8_DOT
inline __m256i add_int8_dot(__m256i sum, __m256i w, __m256i x) { return _mm256_dpbusd_avx_epi32(sum, w, x); }
#endif

// Rows of int8 with a scale for each block, and the sums of the integers of each group of a format.
struct QuantizedInput {
  int64_t depth, groups;
  std::vector<int8_t> quants;   // [rows, depth]
  std::vector<float> scales;    // [rows, depth / BLOCK_DEPTH]
  std::vector<int32_t> sums;    // [rows, groups x depth / BLOCK_DEPTH]
};

// Rounds to the nearest of 127 steps in each direction: the error of an element is at most half a step.
template <typename T>
void quantize_block(const T* from, int8_t* to, float& scale, int32_t* sums, int64_t groups) {
  float wide[BLOCK_DEPTH];
  Vec most(0.0f);
  for (int64_t k = 0; k < BLOCK_DEPTH; k += LANES) {
    const Vec x = load(from + k);
    x.store(wide + k);
    most = at::vec::maximum(most, x.abs());
  }
  float lanes[LANES], largest = 0;
  most.store(lanes);
  for (const float lane : lanes) largest = std::max(largest, lane);
  for (const float lane : lanes) largest = std::isnan(lane) ? lane : largest;
  scale = largest / 127.0f;  // infinity or NaN makes NaN of the product, for it is multiplied by sums that are zero
  const bool usable = largest > SMALLEST_INPUT && largest < std::numeric_limits<float>::infinity();
  const Vec inverse(usable ? 127.0f / largest : 0.0f);
  for (int64_t k = 0; k < BLOCK_DEPTH; k += LANES) (Vec::loadu(wide + k) * inverse).round().store(wide + k);
  for (int64_t g = 0; g < groups; ++g) sums[g] = 0;
  for (int64_t k = 0; k < BLOCK_DEPTH; ++k) {
    to[k] = usable ? int8_t(wide[k]) : int8_t(0);
    sums[k * groups / BLOCK_DEPTH] += to[k];
  }
}

inline QuantizedInput quantize_input(const Tensor& x, int64_t groups) {
  const Tensor in = x.contiguous();
  const int64_t rows = in.size(0), depth = in.size(1), blocks = depth / BLOCK_DEPTH;
  TORCH_CHECK(depth % BLOCK_DEPTH == 0, "inputs consist of complete blocks");
  QuantizedInput y{depth, groups, std::vector<int8_t>(rows * depth), std::vector<float>(rows * blocks),
                   std::vector<int32_t>(rows * blocks * groups)};
  FOR_DTYPE(in, [&] {
    const auto* from = in.const_data_ptr<scalar_t>();
    parallel_rows(rows, depth, [&](int64_t row) {
      for (int64_t b = row * blocks; b < (row + 1) * blocks; ++b)
        quantize_block(from + b * BLOCK_DEPTH, y.quants.data() + b * BLOCK_DEPTH, y.scales[b],
                       y.sums.data() + b * groups, groups);
    });
  });
  return y;
}

inline __m256 load_scales(const float* p) { return _mm256_loadu_ps(p); }
inline __m256 load_scales(const at::Half* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }

// The vectors of a block of integers, as `dot` needs them: nibbles, or bytes; with HAS_INT8_DOT bytes plus 128.
template <class I>
inline void unpack(const uint8_t* block, __m256i* w) {
  const auto read = [&](int i) { return _mm256_loadu_si256((const __m256i*)(block + 32 * i)); };
  if constexpr (I::BITS == 4) {
    const __m256i mask = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m256i both = read(j);
      w[2 * j] = _mm256_and_si256(both, mask);
      w[2 * j + 1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
    }
  } else {
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) w[j] = read(j);
#ifdef HAS_INT8_DOT
    for (int j = 0; j < 8; ++j) w[j] = _mm256_xor_si256(w[j], _mm256_set1_epi8(char(0x80)));
#endif
  }
}

// What `dot` has added to each integer of the weights.
template <class F>
constexpr int added_zero() {
#ifdef HAS_INT8_DOT
  if (F::Integers::BITS == 8) return 128;
#endif
  return F::ZERO;
}

// The products of COUNT vectors of a block and the same elements of one input row, summed for each column.
template <class I, int COUNT>
inline __m256i dot(const __m256i* w, const int8_t* x) {
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

// R rows of the input, by their numbers, times BLOCK_COLUMNS columns -> y [R, y_stride].
template <class F, int R>
inline void packed_tile(const uint8_t* block, const QuantizedInput& x, const int64_t* rows, float* y,
                        int64_t y_stride) {
  constexpr int VECTORS = 8 / F::GROUPS, ADDED = added_zero<F>();
  const int64_t blocks = x.depth / BLOCK_DEPTH;
  __m256 total[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) total[r] = _mm256_setzero_ps();
  for (int64_t b = 0; b < blocks; ++b, block += F::BYTES) {
    for (int64_t at = 0; at < F::BYTES; at += 64) __builtin_prefetch(block + PREFETCH_BYTES + at, 0, 2);
    __m256i w[8];
    unpack<typename F::Integers>(block + F::HEAD, w);
#pragma GCC unroll 2
    for (int g = 0; g < F::GROUPS; ++g) {
      const auto* own = F::scales(block, g);
      const __m256 scale = load_scales(own);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const int64_t at = rows[r] * blocks + b;
        __m256i sum = dot<typename F::Integers, VECTORS>(w + g * VECTORS,
                                                         x.quants.data() + at * BLOCK_DEPTH + g * 4 * VECTORS);
        const int32_t inputs = x.sums[at * F::GROUPS + g];
        if constexpr (ADDED != 0) sum = _mm256_sub_epi32(sum, _mm256_set1_epi32(ADDED * inputs));
        const __m256 step = _mm256_set1_ps(x.scales[at]);
        total[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(scale, step), total[r]);
        if constexpr (F::OFFSETS)
          total[r] = _mm256_fmadd_ps(load_scales(own + BLOCK_COLUMNS),
                                     _mm256_mul_ps(step, _mm256_set1_ps(float(inputs))), total[r]);
      }
    }
  }
  for (int r = 0; r < R; ++r) _mm256_storeu_ps(y + r * y_stride, total[r]);
}

// The same for any number of rows.
template <class F>
inline void packed_tiles(const uint8_t* block, const QuantizedInput& x, const int64_t* rows, int64_t count, float* y,
                         int64_t y_stride) {
  int64_t r = 0;
  for (; r + 4 <= count; r += 4) packed_tile<F, 4>(block, x, rows + r, y + r * y_stride, y_stride);
  if (count - r == 3) packed_tile<F, 3>(block, x, rows + r, y + r * y_stride, y_stride);
  if (count - r == 2) packed_tile<F, 2>(block, x, rows + r, y + r * y_stride, y_stride);
  if (count - r == 1) packed_tile<F, 1>(block, x, rows + r, y + r * y_stride, y_stride);
}

// x [rows, depth] times each of N packed matrices of one format and size. `finish`: see `matmul` in matmul.h.
template <size_t N, typename Finish>
void matmul_of_packed(const std::array<Tensor, N>& ws, const Tensor& x, const Finish& finish) {
  const int64_t rows = x.size(0), columns = ws[0].size(0) * BLOCK_COLUMNS;
  TORCH_CHECK(ws[0].size(1) * BLOCK_DEPTH == x.size(1), "the matrix has another depth than the input");
  with_format(ws[0].size(2), false, [&](auto format) {
    using F = decltype(format);
    const QuantizedInput inputs = quantize_input(x, F::GROUPS);
    std::vector<int64_t> numbers(rows);
    std::iota(numbers.begin(), numbers.end(), 0);
    const int64_t strips = (columns + PACKED_STRIP - 1) / PACKED_STRIP, elements = N * PACKED_STRIP * x.size(1);
    const int64_t pieces = 2 * CHUNKS_PER_THREAD * at::get_num_threads();
    const int64_t least = std::max<int64_t>(1, GRAIN / elements),
                  share = std::clamp((strips + pieces - 1) / pieces, least, std::max<int64_t>(least, MAX_CHUNK_ELEMENTS / elements));
    parallel_dynamic(strips, share, [&](int64_t begin, int64_t end) {
      std::vector<float> sums(N * rows * PACKED_STRIP);
      for (int64_t number = begin; number < end; ++number) {
        const int64_t first = number * PACKED_STRIP, count = std::min(PACKED_STRIP, columns - first);
        for (int64_t row = 0; row < rows; row += ROW_BLOCK)  // which stay in the L2 cache
          for (size_t i = 0; i < N; ++i)
            for (int64_t c = 0; c < count; c += BLOCK_COLUMNS)
              packed_tiles<F>(ws[i].template const_data_ptr<uint8_t>() + (first + c) / BLOCK_COLUMNS * ws[i].stride(0),
                              inputs, numbers.data() + row, std::min(ROW_BLOCK, rows - row),
                              sums.data() + (i * rows + row) * count + c, count);
        finish(first, count, sums.data());
      }
    });
  });
}

}  // namespace
