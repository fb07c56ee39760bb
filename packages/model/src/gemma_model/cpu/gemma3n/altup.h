// AltUp (https://arxiv.org/abs/2301.13310): the residual stream is N streams. A layer runs on the active one,
// predicts what it would make of each, and corrects the predictions afterwards.
//
// M tokens, N streams, H hidden.

#pragma once

#include "../vec.h"

#include <ATen/ops/empty_like.h>

#include <vector>

namespace {

// tanh(modality_router(router_norm(x) / H)) -> out [N].
template <typename T>
void altup_router(const T* x, const T* norm, const T* router, int64_t width, int64_t count, double eps, float* out,
                  float* scratch) {
  const Vec scale(inverse_rms(x, width, eps) / float(width));
  for (int64_t i = 0; i < width; i += LANES) (load(x + i) * scale * load(norm + i)).store(scratch + i);
  for (int64_t n = 0; n < count; ++n) out[n] = std::tanh(dot(router + n * width, scratch, width));
}

// The predictions: streams [M, N, H] -> [M, N, H].
Tensor altup_predict(const Tensor& streams, int64_t active, const Tensor& norm, const Tensor& router,
                     const Tensor& coefs, double eps) {
  const int64_t count = streams.size(1), width = streams.size(2);
  const Tensor y = at::empty_like(streams);
  FOR_DTYPE(streams, [&] {
    const auto *from = streams.const_data_ptr<scalar_t>(), *w = norm.const_data_ptr<scalar_t>();
    const auto *r = router.const_data_ptr<scalar_t>(), *c = coefs.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    parallel_rows(streams.size(0), count * width, [&](int64_t row) {
      const auto* s = from + row * count * width;
      std::vector<float> scratch(width), routed(count), share(count * count);
      altup_router(s + active * width, w, r, width, count, eps, routed.data(), scratch.data());
      for (int64_t i = 0; i < count * count; ++i) {
        share[i] = 0;
        for (int64_t n = 0; n < count; ++n) share[i] += float(c[i * count + n]) * routed[n];
      }
      for (int64_t i = 0; i < width; i += LANES)
        for (int64_t n = 0; n < count; ++n) {
          Vec sum = load(s + n * width + i);
          for (int64_t m = 0; m < count; ++m)
            sum = at::vec::fmadd(Vec(share[n * count + m]), load(s + m * width + i), sum);
          store(to + (row * count + n) * width + i, sum);
        }
    });
  });
  return y;
}

// The predictions [M, N, H], corrected by the layer's output for the active stream [M, H] -> [M, N, H].
Tensor altup_correct(const Tensor& predicted, int64_t active, const Tensor& activated, const Tensor& norm,
                     const Tensor& router, const Tensor& coefs, double eps) {
  const int64_t count = predicted.size(1), width = predicted.size(2);
  const Tensor y = at::empty_like(predicted);
  FOR_DTYPE(predicted, [&] {
    const auto *from = predicted.const_data_ptr<scalar_t>(), *a = activated.const_data_ptr<scalar_t>();
    const auto *w = norm.const_data_ptr<scalar_t>(), *r = router.const_data_ptr<scalar_t>();
    const auto* c = coefs.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    parallel_rows(predicted.size(0), count * width, [&](int64_t row) {
      const auto *p = from + row * count * width, *x = a + row * width;
      std::vector<float> scratch(width), routed(count), share(count);
      altup_router(x, w, r, width, count, eps, routed.data(), scratch.data());
      for (int64_t n = 0; n < count; ++n) {
        share[n] = 1;
        for (int64_t m = 0; m < count; ++m) share[n] += float(c[n * count + m]) * routed[m];
      }
      for (int64_t i = 0; i < width; i += LANES) {
        const Vec innovation = load(x + i) - load(p + active * width + i);
        for (int64_t n = 0; n < count; ++n)
          store(to + (row * count + n) * width + i, at::vec::fmadd(Vec(share[n]), innovation, load(p + n * width + i)));
      }
    });
  });
  return y;
}

// Adds RMSNorm(y) * weight to every stream but the first, in place: streams [M, N, H], y [M, H].
void add_to_other_streams(Tensor streams, const Tensor& y, const Tensor& weight, double eps) {
  const int64_t width = y.size(1), count = streams.size(1);
  FOR_DTYPE(y, [&] {
    const auto *from = y.const_data_ptr<scalar_t>(), *w = weight.const_data_ptr<scalar_t>();
    auto* to = streams.mutable_data_ptr<scalar_t>();
    parallel_rows(y.size(0), count * width, [&](int64_t row) {
      const Vec scale(inverse_rms(from + row * width, width, eps));
      for (int64_t i = 0; i < width; i += LANES) {
        const Vec more = load(from + row * width + i) * scale * load(w + i);
        for (int64_t n = 1; n < count; ++n) {
          auto* place = to + (row * count + n) * width + i;
          store(place, load(place) + more);
        }
      }
    });
  });
}

}  // namespace
