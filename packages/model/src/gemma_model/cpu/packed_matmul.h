// Products of packed matrices (see packed_format.h). Inputs are quantised to int8, in blocks of BLOCK_DEPTH with one
// scale each, so that sums within a block are exact integers. With few rows the time is that of reading the weights.
//
// The additions of one element are always done in the same order, so that a row of a batch is bit for bit the row alone.

#pragma once

#include "int8_dot.h"
#include "matmul.h"

#include <array>
#include <limits>
#include <numeric>
#include <vector>

namespace {

constexpr int64_t PACKED_STRIP = 48;     // columns of a product that one thread computes at a time
constexpr int64_t PREFETCH_BYTES = 1024;  // of the weights, before they are used
constexpr float SMALLEST_INPUT = 1e-30f;   // a block without larger elements counts as zero: 1 / step must be finite

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
  for (int64_t k = 0; k < BLOCK_DEPTH; k += LANES) round_to_even(Vec::loadu(wide + k) * inverse).store(wide + k);
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

// R rows of the input, by their numbers, times BLOCK_COLUMNS columns -> y [R, y_stride].
template <class F, int R>
inline void packed_tile(const uint8_t* block, const QuantizedInput& x, const int64_t* rows, float* y,
                        int64_t y_stride) {
  using Integers = BlockIntegers<typename F::Integers, R>;
  constexpr int VECTORS = 8 / F::GROUPS, ADDED = F::ZERO + Integers::ADDED;
  const int64_t blocks = x.depth / BLOCK_DEPTH;
  ColumnFloats total[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) total[r] = repeat(0.0f);
  for (int64_t b = 0; b < blocks; ++b, block += F::BYTES) {
    for (int64_t at = 0; at < F::BYTES; at += 64) __builtin_prefetch(block + PREFETCH_BYTES + at, 0, 2);
    const Integers integers(block + F::HEAD);
#pragma GCC unroll 2
    for (int g = 0; g < F::GROUPS; ++g) {
      const auto* own = F::scales(block, g);
      const ColumnFloats scale = load_columns(own);
      const auto input = [&](int r) {
        return x.quants.data() + (rows[r] * blocks + b) * BLOCK_DEPTH + g * 4 * VECTORS;
      };
      integers.template dot<VECTORS>(g * VECTORS, input, [&](int r, ColumnSums sum) ALWAYS_INLINE {
        const int64_t at = rows[r] * blocks + b;
        const int32_t inputs = x.sums[at * F::GROUPS + g];
        if constexpr (ADDED != 0) sum = subtract(sum, ADDED * inputs);
        const ColumnFloats step = repeat(x.scales[at]);
        total[r] = fused_multiply_add(to_floats(sum), multiply(scale, step), total[r]);
        if constexpr (F::OFFSETS)
          total[r] = fused_multiply_add(load_columns(own + BLOCK_COLUMNS),
                                        multiply(step, repeat(float(inputs))), total[r]);
      });
    }
  }
  for (int r = 0; r < R; ++r) store_columns(y + r * y_stride, total[r]);
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
