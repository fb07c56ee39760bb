// RMS norms.

#pragma once

#include "vec.h"

#include <ATen/ops/empty_like.h>

namespace {

// RMSNorm(x) * weight: x [M, H], weight [H] -> [M, H].
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  const int64_t width = x.size(-1);
  const Tensor in = x.contiguous(), y = at::empty_like(in);
  FOR_DTYPE(x, [&] {
    const auto *from = in.const_data_ptr<scalar_t>(), *w = weight.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    parallel_rows(x.numel() / width, width, [&](int64_t row) {
      const Vec scale(inverse_rms(from + row * width, width, eps));
      for (int64_t i = 0; i < width; i += LANES)
        store(to + row * width + i, load(from + row * width + i) * scale * load(w + i));
    });
  });
  return y;
}

// x + RMSNorm(y) * weight: x, y [M, H], weight [H] -> [M, H].
Tensor add_norm(const Tensor& x, const Tensor& y, const Tensor& weight, double eps) {
  const int64_t width = x.size(1);
  const Tensor sum = at::empty_like(x);
  FOR_DTYPE(x, [&] {
    const auto *a = x.const_data_ptr<scalar_t>(), *b = y.const_data_ptr<scalar_t>();
    const auto* w = weight.const_data_ptr<scalar_t>();
    auto* to = sum.mutable_data_ptr<scalar_t>();
    parallel_rows(x.size(0), width, [&](int64_t row) {
      const int64_t at = row * width;
      const Vec scale(inverse_rms(b + at, width, eps));
      for (int64_t i = 0; i < width; i += LANES)
        store(to + at + i, load(a + at + i) + load(b + at + i) * scale * load(w + i));
    });
  });
  return sum;
}

}  // namespace
