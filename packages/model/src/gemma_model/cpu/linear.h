// Linear layers and the output head.

#pragma once

#include "matmul.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>

namespace {

// x with rows of whole vectors, as the products read them. Only checkpoints of unusual sizes need padding.
Tensor pad_to_vectors(const Tensor& x) {
  const int64_t missing = (LANES - x.size(1) % LANES) % LANES;
  return missing ? at::constant_pad_nd(x, {0, missing}) : x.stride(1) == 1 ? x : x.contiguous();
}

// x [M, in], w [out, in] -> x @ w.T [M, out].
Tensor linear(const Tensor& x, const Tensor& w) {
  const int64_t columns = w.size(0), rows = x.size(0);
  const Tensor inputs = pad_to_vectors(x), weights = pad_to_vectors(w);
  const Tensor y = at::empty({rows, columns}, x.options());
  FOR_DTYPE(w, [&] {
    auto* out = y.mutable_data_ptr<scalar_t>();
    matmul(Matrix<scalar_t>(weights), inputs, [&](int64_t first, int64_t count, const float* sums) {
      for (int64_t r = 0; r < rows; ++r) store(out + r * columns + first, sums + r * count, count);
    });
  });
  return y;
}

// cap * tanh(x / cap). The error is less than a millionth of the cap, which is less than that of the sums before it.
inline Vec softcap(Vec x, float cap) {
  const Vec e = (x * Vec(2 / cap)).exp();
  return Vec(cap) - Vec(2 * cap) / (e + Vec(1.0f));
}

// The output head: x @ w.T [M, vocab] in fp32, softly capped at +-cap; no cap if it is 0.
Tensor logits(const Tensor& x, const Tensor& w, double cap) {
  const int64_t columns = w.size(0), rows = x.size(0);
  const Tensor y = at::empty({rows, columns}, x.options().dtype(at::kFloat));
  FOR_DTYPE(w, [&] {
    auto* out = y.mutable_data_ptr<float>();
    matmul(Matrix<scalar_t>(w), x, [&](int64_t first, int64_t count, const float* sums) {
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
  });
  return y;
}

}  // namespace
