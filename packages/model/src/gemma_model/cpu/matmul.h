// Matrix products x @ w.T. `matmul` chooses between the loops for few rows and those for many.
//
// With few rows (decoding) the time is that of reading the weights once. PyTorch's own bf16 products of a few rows
// reach only a fraction of the memory's bandwidth.

#pragma once

#include "matmul_packed.h"
#include "matmul_tile.h"

#include <array>

namespace {

#ifdef CPU_CAPABILITY_AVX512
constexpr int64_t PACKED_FROM_ROWS = 129;  // from so many rows on the operands are packed first
#else
constexpr int64_t PACKED_FROM_ROWS = 8;
#endif
constexpr int64_t CHUNKS_PER_THREAD = 2;         // of a product; more if a chunk would exceed MAX_CHUNK_ELEMENTS
constexpr int64_t MAX_CHUNK_ELEMENTS = 3 << 19;  // of the weights: about 0.1 ms of reading

// `groups` groups of R rows of x (ROW_BLOCK rows at most) times `count` rows of w (PREFETCH_COLUMNS at most). The
// size of a tile, R x C, is chosen so that its sums and operands fit into 32 registers. A tile's rows of w meet all
// groups before the next ones do, while they still are in the L1 cache.
template <int R, int C, typename T>
void tiles(const Matrix<T>& w, int64_t first, int64_t count, const Input<T>* x, int64_t groups, float* y,
           int64_t y_stride) {
  constexpr int64_t SUMS = PREFETCH_COLUMNS * R;
  float own[SUMS * (R < 8 ? 1 : ROW_BLOCK / 8)];
  float* turned = R == 1 ? y : own;  // [groups, count, R]
  const auto all_groups = [&](int64_t c, const auto& work) {
    for (int64_t g = 0; g < groups; ++g) work(x + g * R * w.depth, turned + g * SUMS + c * R, g == 0);
  };
  int64_t c = 0;
  for (; c + C <= count; c += C)
    all_groups(c, [&](const auto* in, float* out, bool lead) { tile<R, C>(w, first + c, in, out, lead); });
  for (; c < count; ++c)
    all_groups(c, [&](const auto* in, float* out, bool lead) { tile<R, 1>(w, first + c, in, out, lead); });
  if constexpr (R == 1) return;
  for (int64_t g = 0; g < groups; ++g) {
    const float* from = turned + g * SUMS;
    float* to = y + g * R * y_stride;
    c = 0;
#ifdef CPU_CAPABILITY_AVX512
    if constexpr (R == 8)
      for (; c + 8 <= count; c += 8) transpose(from + c * R, to + c, y_stride);
#endif
    for (; c < count; ++c)
      for (int r = 0; r < R; ++r) to[r * y_stride + c] = from[c * R + r];
  }
}

// x [rows, depth] times `count` rows of w -> y [rows, count]. With few rows a tile has many columns, for the weights
// come from memory; with many rows it has few, so that a weight serves all rows once it was read.
template <typename T>
void strip(const Matrix<T>& w, int64_t first, int64_t count, const Input<T>* x, int64_t rows, float* y,
           int64_t y_stride) {
  for (int64_t c = 0; c < count; c += PREFETCH_COLUMNS) {
    const int64_t some = std::min(PREFETCH_COLUMNS, count - c);
    for (int64_t r = 0; r < rows;) {
      const int64_t left = rows - r;
      const auto* from = x + r * w.depth;
      float* to = y + r * y_stride + c;
      const int64_t groups = std::min(left, ROW_BLOCK) / 8;
      if (groups > 0)
        tiles<8, 3>(w, first + c, some, from, groups, to, y_stride), r += groups * 8;
      else if (left >= 4)
        tiles<4, 6>(w, first + c, some, from, 1, to, y_stride), r += 4;
      else if (left == 3)
        tiles<3, 6>(w, first + c, some, from, 1, to, y_stride), r += 3;
      else if (left == 2)
        tiles<2, 8>(w, first + c, some, from, 1, to, y_stride), r += 2;
      else
        tiles<1, 8>(w, first + c, some, from, 1, to, y_stride), r += 1;
    }
  }
}

// x [rows, depth] times each of N matrices [columns, depth], for few rows: see `matmul`.
template <typename T, size_t N, typename Finish>
void matmul_few_rows(const std::array<Matrix<T>, N>& ws, const Tensor& x, const Finish& finish) {
  const auto inputs = prepare_input<T>(x);
  const int64_t rows = x.size(0), columns = ws[0].rows;
  const int64_t strips = (columns + STRIP - 1) / STRIP, elements = N * STRIP * ws[0].depth;
  const int64_t least = std::max<int64_t>(1, GRAIN / elements), most = std::max(least, MAX_CHUNK_ELEMENTS / elements);
  const int64_t share =
      (strips + CHUNKS_PER_THREAD * at::get_num_threads() - 1) / (CHUNKS_PER_THREAD * at::get_num_threads());
  parallel_dynamic(strips, std::clamp(share, least, most), [&](int64_t begin, int64_t end) {
    std::vector<float> sums(N * rows * STRIP);
    for (int64_t number = begin; number < end; ++number) {
      const int64_t first = number * STRIP, count = std::min(STRIP, columns - first);
      for (size_t i = 0; i < N; ++i)
        strip(ws[i], first, count, inputs.data(), rows, sums.data() + i * rows * count, count);
      finish(first, count, sums.data());
    }
  });
}

// x [rows, depth] times each of N matrices [columns, depth]. Calls `finish(first, count, sums)` for each strip of
// columns; `sums` are [N, rows, count].
template <typename T, size_t N, typename Finish>
void matmul(const std::array<Matrix<T>, N>& ws, const Tensor& x, const Finish& finish) {
  x.size(0) < PACKED_FROM_ROWS ? matmul_few_rows(ws, x, finish) : matmul_packed(ws, x, finish);
}

template <typename T, typename Finish>
void matmul(const Matrix<T>& w, const Tensor& x, const Finish& finish) {
  matmul(std::array{w}, x, finish);
}

}  // namespace
