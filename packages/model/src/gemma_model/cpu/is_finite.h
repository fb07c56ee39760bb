// Whether a tensor has infinite or NaN elements.

#pragma once

#include "vec.h"

namespace {

// Whether no element has an exponent of all ones.
template <typename Bits>
bool all_finite(const Bits* x, int64_t count, Bits exponent) {
  std::atomic<bool> finite{true};
  at::parallel_for(0, count, GRAIN, [&](int64_t begin, int64_t end) {
    Bits found = 0;
    for (int64_t i = begin; i < end; ++i) found |= Bits((x[i] & exponent) == exponent);
    if (found) finite = false;
  });
  return finite;
}

// Whether no element is infinite or NaN.
bool is_finite(const Tensor& x) {
  if (!x.is_contiguous() && x.dim() == 1) return is_finite(x.contiguous());
  if (!x.is_contiguous()) {  // a part of each row, such as some columns of a cache
    for (int64_t i = 0; i < x.size(0); ++i)
      if (!is_finite(x.select(0, i))) return false;
    return true;
  }
  return x.scalar_type() == at::kBFloat16
             ? all_finite<uint16_t>((const uint16_t*)x.const_data_ptr(), x.numel(), 0x7f80)
             : all_finite<uint32_t>((const uint32_t*)x.const_data_ptr<float>(), x.numel(), 0x7f800000);
}

}  // namespace
