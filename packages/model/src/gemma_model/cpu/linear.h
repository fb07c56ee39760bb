// Linear layers and the output head.

#pragma once

#include "packed_matmul.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>

namespace {

// x with rows of whole vectors, as the products read them. Only checkpoints of unusual sizes need padding.
Tensor pad_to_vectors(const Tensor& x) {
  const int64_t missing = (LANES - x.size(1) % LANES) % LANES;
  return missing ? at::constant_pad_nd(x, {0, missing}) : x.stride(1) == 1 ? x : x.contiguous();
}

// x [rows, depth] times each of N matrices of one size and kind: dense ones [columns, depth], or packed ones (see
// packed_format.h). `finish`: see `matmul` in matmul.h.
template <size_t N, typename Finish>
void matmul(const std::array<Tensor, N>& ws, const Tensor& x, const Finish& finish) {
  if (is_packed(ws[0])) return matmul_of_packed(ws, x, finish);
  FOR_DTYPE(ws[0], [&] {
    const auto matrices = [&]<size_t... I>(std::index_sequence<I...>) {
      return std::array<Matrix<scalar_t>, N>{Matrix<scalar_t>(ws[I])...};
    };
    matmul(matrices(std::make_index_sequence<N>()), x, finish);
  });
}

// The number of columns of a product with w.
inline int64_t columns_of(const Tensor& w) { return is_packed(w) ? w.size(0) * BLOCK_COLUMNS : w.size(0); }

// x [M, in], w [out, in], dense or packed -> x @ w.T [M, out].
Tensor linear(const Tensor& x, const Tensor& w) {
  const int64_t columns = columns_of(w), rows = x.size(0);
  const Tensor weights = is_packed(w) ? w : pad_to_vectors(w), inputs = is_packed(w) ? x : pad_to_vectors(x);
  const Tensor y = at::empty({rows, columns}, x.options());
  FOR_DTYPE(x, [&] {
    auto* out = y.mutable_data_ptr<scalar_t>();
    matmul(std::array{weights}, inputs, [&](int64_t first, int64_t count, const float* sums) {
      for (int64_t r = 0; r < rows; ++r) store(out + r * columns + first, sums + r * count, count);
    });
  });
  return y;
}

// cap * tanh(x / cap). The error is less than a millionth of the cap, which is less than that of the sums before it.
inline Vec softcap(Vec x, float cap) {
  const Vec e = exp(x * Vec(2 / cap));
  return Vec(cap) - Vec(2 * cap) / (e + Vec(1.0f));
}

// The output head: x @ w.T [M, vocab] in fp32, softly capped at +-cap; no cap if it is 0.
Tensor logits(const Tensor& x, const Tensor& w, double cap) {
  const int64_t columns = columns_of(w), rows = x.size(0);
  const Tensor y = at::empty({rows, columns}, x.options().dtype(at::kFloat));
  auto* out = y.mutable_data_ptr<float>();
  matmul(std::array{w}, x, [&](int64_t first, int64_t count, const float* sums) {
    for (int64_t r = 0; r < rows; ++r) {
      float* to = out + r * columns + first;
      if (cap == 0) {
        std::copy_n(sums + r * count, count, to);
        continue;
      }
      for (int64_t i = 0; i < count; i += LANES) {
        const int64_t n = std::min(LANES, count - i);
        softcap(Vec::loadu(sums + r * count + i, n), float(cap)).store(to + i, n);
      }
    }
  });
  return y;
}

}  // namespace
