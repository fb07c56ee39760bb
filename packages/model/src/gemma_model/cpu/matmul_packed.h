// Matrix products of many rows (prompts), which are limited by arithmetic. Both operands are packed into panels
// first, so that a tile of sums reads each of them from one end to the other.
//
// A panel has PANEL_ROWS rows of x or PANEL_COLUMNS rows of w: the first vector of each row, then the second of each,
// and so on. The order of additions is that of matmul_tile.h, so that the result is bit for bit the same.

#pragma once

#include "matmul_tile.h"

#include <array>
#include <memory>

namespace {

constexpr int64_t PANEL_DEPTH = 512;  // elements of a panel's rows that are used while they are in the L1 cache
constexpr int PANEL_ROWS = REGISTERS / 4;  // PANEL_ROWS x PANEL_COLUMNS sums fit into the registers, with their operands
constexpr int PANEL_COLUMNS = 3;

// Elements of a vector of operands.
template <typename T>
constexpr int64_t VECTOR_ELEMENTS = std::is_same_v<Input<T>, float> ? LANES : 2 * LANES;

// Panels of P rows each. The last vector of a row is filled up with zeros, and so are the missing rows of the last
// panel.
template <int P, typename T>
class Panels {
 public:
  Panels(int64_t rows, int64_t depth)
      : vectors((depth + VECTOR_ELEMENTS<T> - 1) / VECTOR_ELEMENTS<T>),
        count((rows + P - 1) / P),
        depth_(depth),
        data_(new Input<T>[count * P * vectors * VECTOR_ELEMENTS<T>]) {}

  const int64_t vectors, count;

  const Input<T>* at(int64_t panel, int64_t vector) const { return data_.get() + place(panel * P, vector); }

  void pack_row(int64_t row, const T* from) {
    Input<T>* to = data_.get() + place(row, 0);
    int64_t k = 0;
    if constexpr (std::is_same_v<Input<T>, float>) {
      for (; k + 2 * LANES <= depth_; k += 2 * LANES, to += 2 * P * LANES)
        widen_half<0>(from + k).store(to), widen_half<1>(from + k).store(to + P * LANES);
      if (k < depth_) load(from + k).store(to);
    } else {
      for (; k < depth_; k += VECTOR_ELEMENTS<T>, to += P * VECTOR_ELEMENTS<T>) {
        const int64_t some = std::min(VECTOR_ELEMENTS<T>, depth_ - k);
        std::fill_n(std::copy_n(from + k, some, to), VECTOR_ELEMENTS<T> - some, Input<T>(0.0f));
      }
    }
  }

  void zero_row(int64_t row) {
    for (int64_t v = 0; v < vectors; ++v) std::fill_n(data_.get() + place(row, v), VECTOR_ELEMENTS<T>, Input<T>(0.0f));
  }

 private:
  int64_t place(int64_t row, int64_t vector) const {
    return ((row / P * vectors + vector) * P + row % P) * VECTOR_ELEMENTS<T>;
  }

  const int64_t depth_;
  const std::unique_ptr<Input<T>[]> data_;
};

inline auto load_vector(const float* p) { return Vec::loadu(p); }
inline Vec add_products(Vec sum, Vec a, Vec b) { return at::vec::fmadd(a, b, sum); }
#ifdef HAS_BF16_DOT
inline auto load_vector(const at::BFloat16* p) { return _mm512_loadu_si512(p); }
inline Vec add_products(Vec sum, __m512i a, __m512i b) { return add_pairs(sum, a, b); }
#endif

// Adds the products of `vectors` vectors of two panels to a tile of sums [PANEL_ROWS, PANEL_COLUMNS].
template <typename In>
inline void add_panels(const In* x, const In* w, int64_t vectors, Vec* tile) {
  constexpr int R = PANEL_ROWS, C = PANEL_COLUMNS;
  constexpr int64_t width = std::is_same_v<In, float> ? LANES : 2 * LANES;
  Vec sums[R * C];
#pragma GCC unroll 24
  for (int i = 0; i < R * C; ++i) sums[i] = tile[i];
  for (; vectors > 0; --vectors, x += R * width, w += C * width) {
    decltype(load_vector(w)) weights[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) weights[c] = keep_in_register(load_vector(w + c * width));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto input = keep_in_register(load_vector(x + r * width));
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sums[r * C + c] = add_products(sums[r * C + c], weights[c], input);
    }
  }
#pragma GCC unroll 24
  for (int i = 0; i < R * C; ++i) tile[i] = sums[i];
}

// Panels of x times panels of w -> y [rows, columns]. A block of rows is multiplied with one part of the depth after
// the other; its unfinished sums are kept meanwhile.
template <typename T>
void multiply(const Panels<PANEL_ROWS, T>& x, const Panels<PANEL_COLUMNS, T>& w, int64_t rows, int64_t columns,
              float* y) {
  constexpr int64_t R = PANEL_ROWS, C = PANEL_COLUMNS, BLOCK = ROW_BLOCK / R, DEPTH = PANEL_DEPTH / VECTOR_ELEMENTS<T>;
  std::vector<Vec> unfinished(x.vectors > DEPTH ? BLOCK * w.count * R * C : 0);
  const auto tile = [&](int64_t p, int64_t q, int64_t begin, int64_t end, Vec* kept) {
    Vec sums[R * C];
#pragma GCC unroll 24
    for (int i = 0; i < R * C; ++i) sums[i] = begin ? kept[i] : Vec(0.0f);
    add_panels(x.at(p, begin), w.at(q, begin), end - begin, sums);
    if (end < x.vectors) {
      std::copy_n(sums, R * C, kept);
      return;
    }
    float done[R * C];
    sum_lanes<R * C>(sums, done);
    for (int64_t r = 0; r < std::min(R, rows - p * R); ++r)
      std::copy_n(done + r * C, std::min(C, columns - q * C), y + (p * R + r) * columns + q * C);
  };
  for (int64_t first = 0; first < x.count; first += BLOCK)
    for (int64_t begin = 0; begin < x.vectors; begin += DEPTH)
      for (int64_t p = first; p < std::min(first + BLOCK, x.count); ++p)
        for (int64_t q = 0; q < w.count; ++q)
          tile(p, q, begin, std::min(begin + DEPTH, x.vectors),
               unfinished.data() + ((p - first) * w.count + q) * R * C);
}

// x [rows, depth] times each of N matrices [columns, depth], for many rows: see `matmul` in matmul.h.
template <typename T, size_t N, typename Finish>
void matmul_packed(const std::array<Matrix<T>, N>& ws, const Tensor& x, const Finish& finish) {
  const Tensor in = x.contiguous();
  TORCH_CHECK(in.scalar_type() == c10::CppTypeToScalarType<T>::value, "inputs and weights are of one type");
  const int64_t rows = x.size(0), columns = ws[0].rows, depth = ws[0].depth;
  Panels<PANEL_ROWS, T> inputs(rows, depth);
  parallel_rows(inputs.count * PANEL_ROWS, depth, [&](int64_t row) {
    row < rows ? inputs.pack_row(row, in.const_data_ptr<T>() + row * depth) : inputs.zero_row(row);
  });
  parallel_dynamic((columns + STRIP - 1) / STRIP, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> sums(N * rows * STRIP);
    for (int64_t first = begin * STRIP; first < std::min(end * STRIP, columns); first += STRIP) {
      const int64_t count = std::min(STRIP, columns - first);
      Panels<PANEL_COLUMNS, T> weights(count, depth);
      for (size_t i = 0; i < N; ++i) {
        for (int64_t c = 0; c < weights.count * PANEL_COLUMNS; ++c)
          c < count ? weights.pack_row(c, ws[i].data + (first + c) * ws[i].stride) : weights.zero_row(c);
        multiply(inputs, weights, rows, count, sums.data() + i * rows * count);
      }
      finish(first, count, sums.data());
    }
  });
}

}  // namespace
