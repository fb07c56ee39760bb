// Attention over the KV cache: query and key norms, rotary positions, writing keys and values, and the attention
// itself.
//
// M new tokens, d head_dim. A layer of the cache is [slots, 2 x kv_heads, columns, d]; position p is in column p %
// columns.

#pragma once

#include "matmul.h"

#include <ATen/ops/empty.h>

#include <optional>

namespace {

// Applies norms and rotary positions to the heads of new tokens, and writes keys and values into the cache.
//   projected [M, heads x d]: queries, followed by keys and values in a layer that stores them
//   scale [heads, d] fp32; cos, sin [M, 1, d] fp32, the first half of the sines negated
//   layer: see above; slots, positions [M] int64
// -> queries [M, query heads, d]
Tensor norm_rotate_store(const Tensor& projected, const Tensor& scale, const Tensor& cos, const Tensor& sin, double eps,
                         int64_t queries, const std::optional<Tensor>& layer, const Tensor& slots,
                         const Tensor& positions) {
  const int64_t width = scale.size(1), count = scale.size(0), kv = (count - queries) / 2, half = width / 2;
  const Tensor y = at::empty({projected.size(0), queries, width}, projected.options());
  FOR_DTYPE(projected, [&] {
    const auto* from = projected.const_data_ptr<scalar_t>();
    const auto *c = cos.const_data_ptr<float>(), *s = sin.const_data_ptr<float>();
    const auto* factor = scale.const_data_ptr<float>();
    const auto *slot = slots.const_data_ptr<int64_t>(), *position = positions.const_data_ptr<int64_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    auto* cache = layer ? layer->mutable_data_ptr<scalar_t>() : nullptr;
    const int64_t columns = layer ? layer->size(2) : 1;
    parallel_rows(projected.size(0), count * width, [&](int64_t row) {
      std::vector<float> head(width + half);  // followed by a copy of its first half
      for (int64_t h = 0; h < count; ++h) {
        const auto* x = from + (row * count + h) * width;
        const Vec norm(inverse_rms(x, width, eps));
        for (int64_t i = 0; i < width; i += LANES)
          (load(x + i) * norm * Vec::loadu(factor + h * width + i)).store(head.data() + i);
        std::copy_n(head.begin(), half, head.begin() + width);
        const int64_t stored = h - queries;
        auto* place = stored < 0 ? to + (row * queries + h) * width
                                 : cache + ((slot[row] * 2 * kv + stored) * columns + position[row] % columns) * width;
        for (int64_t i = 0; i < width; i += LANES) {
          Vec turned = Vec::loadu(head.data() + i);
          if (h < queries + kv)
            turned = turned * Vec::loadu(c + row * width + i) +
                     Vec::loadu(head.data() + i + half) * Vec::loadu(s + row * width + i);
          store(place + i, turned);
        }
      }
    });
  });
  return y;
}

// weights [G, count] times `count` vectors of LANES x BLOCK elements, added to sums [G, stride].
template <int G, int BLOCK, typename T>
inline void add_weighted_block(const float* weights, int64_t weights_stride, const T* values, int64_t width,
                               int64_t count, float* sums, int64_t stride) {
  Vec total[G][BLOCK];
  for (int g = 0; g < G; ++g)
    for (int b = 0; b < BLOCK; ++b) total[g][b] = Vec::loadu(sums + g * stride + b * LANES);
  for (int64_t p = 0; p < count; ++p)
#pragma GCC unroll 4
    for (int b = 0; b < BLOCK; ++b) {
      const Vec value = load(values + p * width + b * LANES);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g)
        total[g][b] = at::vec::fmadd(Vec(weights[g * weights_stride + p]), value, total[g][b]);
    }
  for (int g = 0; g < G; ++g)
    for (int b = 0; b < BLOCK; ++b) total[g][b].store(sums + g * stride + b * LANES);
}

template <int G, typename T>
void add_weighted_rows(const float* weights, int64_t weights_stride, const T* values, int64_t width, int64_t count,
                       float* sums) {
  int64_t i = 0;
  for (; i + 4 * LANES <= width; i += 4 * LANES)
    add_weighted_block<G, 4>(weights, weights_stride, values + i, width, count, sums + i, width);
  for (; i < width; i += LANES)
    add_weighted_block<G, 1>(weights, weights_stride, values + i, width, count, sums + i, width);
}

// A softmax in place.
inline void softmax(float* score, int64_t count) {
  const Vec top(*std::max_element(score, score + count));
  Vec total(0.0f);
  for (int64_t p = 0; p < count; p += LANES) {
    const int64_t n = std::min(LANES, count - p);
    const Vec weight = exp(Vec::loadu(score + p, n) - top);
    weight.store(score + p, n);
    total = total + Vec::set(Vec(0.0f), weight, n);
  }
  const Vec share(1.0f / sum_lanes(total));
  for (int64_t p = 0; p < count; p += LANES) {
    const int64_t n = std::min(LANES, count - p);
    (Vec::loadu(score + p, n) * share).store(score + p, n);
  }
}

constexpr int64_t ROWS_TOGETHER = 4;  // tokens of a slot that are computed together
constexpr int64_t VALUE_BLOCK = 256;  // columns whose values stay in the L2 cache

// Where groups of at most ROWS_TOGETHER tokens begin that follow each other in a slot; at the end the number of tokens.
inline std::vector<int64_t> row_groups(const int64_t* slot, const int64_t* position, int64_t rows) {
  std::vector<int64_t> begins;
  for (int64_t row = 0; row < rows; ++row)
    if (row == 0 || slot[row] != slot[row - 1] || position[row] != position[row - 1] + 1 ||
        row - begins.back() == ROWS_TOGETHER)
      begins.push_back(row);
  begins.push_back(rows);
  return begins;
}

// Each new token attends to its slot, itself included, as far back as the window. Groups of tokens are computed
// together, because most of what they see is the same.
//   query [M, query heads, d]; slots, positions [M] -> [M, query heads x d]
Tensor attention(const Tensor& query, const Tensor& layer, const Tensor& slots, const Tensor& positions,
                 int64_t window) {
  const int64_t rows = query.size(0), count = query.size(1), width = query.size(2);
  const int64_t kv = layer.size(1) / 2, columns = layer.size(2), groups = count / kv;
  const Tensor y = at::empty({rows, count * width}, query.options());
  const auto *slot = slots.const_data_ptr<int64_t>(), *position = positions.const_data_ptr<int64_t>();
  const std::vector<int64_t> begins = row_groups(slot, position, rows);
  const int64_t parts = int64_t(begins.size()) - 1;
  FOR_DTYPE(query, [&] {
    const auto queries = prepare_input<scalar_t>(query);
    const auto* cache = layer.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    parallel_dynamic(parts * kv, 1, [&](int64_t begin, int64_t end) {
      std::vector<Input<scalar_t>> own(ROWS_TOGETHER * groups * width);
      std::vector<float> scores, sums(ROWS_TOGETHER * groups * width);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t head = task % kv, row = begins[task / kv], tokens = begins[task / kv + 1] - row;
        const int64_t first = std::max<int64_t>(0, position[row] - window + 1), lines = tokens * groups;
        const int64_t seen = position[row + tokens - 1] - first + 1;  // by any of these tokens
        const auto* keys = cache + (slot[row] * 2 * kv + head) * columns * width;
        const auto* values = keys + kv * columns * width;
        const auto place = [&](int64_t token) { return ((row + token) * count + head * groups) * width; };
        const auto for_each_part = [&](int64_t most, const auto& work) {  // in two parts around the end of a ring
          for (int64_t p = 0; p < seen;) {
            const int64_t column = (first + p) % columns, n = std::min({seen - p, columns - column, most});
            work(p, column, n);
            p += n;
          }
        };
        for (int64_t t = 0; t < tokens; ++t)
          std::copy_n(queries.data() + place(t), groups * width, own.data() + t * groups * width);
        scores.resize(lines * seen);
        const Matrix<scalar_t> stored(keys, columns, width, width);
        for_each_part(seen, [&](int64_t p, int64_t column, int64_t n) {
          strip(stored, column, n, own.data(), lines, scores.data() + p, seen);
        });
        for (int64_t line = 0; line < lines; ++line) {
          const int64_t last = position[row + line / groups];
          float *score = scores.data() + line * seen, *from = score + std::max<int64_t>(0, last - window + 1) - first;
          float* end = score + last - first + 1;
          std::fill(score, from, 0.0f);
          softmax(from, end - from);
          std::fill(end, score + seen, 0.0f);
        }
        std::fill_n(sums.begin(), lines * width, 0.0f);
        for_each_part(VALUE_BLOCK, [&](int64_t p, int64_t column, int64_t n) {
          const auto* from = values + column * width;
          int64_t g = 0;
          for (; g + 4 <= lines; g += 4)
            add_weighted_rows<4>(&scores[g * seen + p], seen, from, width, n, &sums[g * width]);
          for (; g < lines; ++g) add_weighted_rows<1>(&scores[g * seen + p], seen, from, width, n, &sums[g * width]);
        });
        for (int64_t t = 0; t < tokens; ++t) store(to + place(t), sums.data() + t * groups * width, groups * width);
      }
    });
  });
  return y;
}

}  // namespace
