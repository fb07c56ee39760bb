// Packed matrices of which single columns are read: `down_proj` of a sparse MLP, whose columns are neurons.
//
// A matrix [outputs, neurons] is stored in blocks of BLOCK_DEPTH neurons, as a uint8 tensor [neurons / BLOCK_DEPTH,
// bytes]: for each group of neurons the scales and offsets of all outputs, then for each neuron the integers of all
// outputs. Of 32 outputs, nibbles are 16 bytes: those of the first 16 outputs are low, those of the others high.

#pragma once

#include "packed_format.h"

#include <numeric>
#include <vector>

namespace {

constexpr int64_t OUTPUTS = 32;  // that are computed together

template <class F>
struct ColumnFormat {
  static constexpr int64_t NEURON = OUTPUTS * F::Integers::BITS / 8;  // bytes of OUTPUTS integers
  static int64_t integers(int64_t outputs, int64_t neuron) {          // where those of a neuron begin in a block
    return outputs * F::SCALES + neuron * outputs * F::Integers::BITS / 8;
  }
  static typename F::Scale* scales(uint8_t* block, int64_t outputs, int group) {
    return reinterpret_cast<typename F::Scale*>(block) + group * outputs * (F::OFFSETS ? 2 : 1);
  }

  // OUTPUTS integers of a neuron; of nibbles their values from 0 to 15.
  static void read(const uint8_t* p, int8_t* to) {
    if constexpr (F::Integers::BITS == 8) {
      std::memcpy(to, p, OUTPUTS);
    } else {
      for (int64_t i = 0; i < OUTPUTS / 2; ++i) to[i] = int8_t(p[i] & 15), to[i + OUTPUTS / 2] = int8_t(p[i] >> 4);
    }
  }
};

// Packs a matrix: see pack_matrix. bytes: of a column of a block in the wanted format.
Tensor pack_columns(const Tensor& quants, const Tensor& scales, const std::optional<Tensor>& offsets, int64_t bits,
                    int64_t bytes) {
  const StoredMatrix from(quants, scales, offsets, bits);
  const int64_t outputs = from.columns;
  TORCH_CHECK(outputs % OUTPUTS == 0, "outputs are a multiple of ", OUTPUTS);
  const Tensor packed = at::empty({from.depth / BLOCK_DEPTH, outputs * bytes}, at::kByte);
  auto* to = packed.mutable_data_ptr<uint8_t>();
  with_format(bytes, true, [&](auto format) {
    using F = decltype(format);
    using C = ColumnFormat<F>;
    parallel_rows(packed.size(0), outputs * F::COLUMN_BYTES, [&](int64_t number) {
      uint8_t* block = to + number * outputs * F::COLUMN_BYTES;
      for (int64_t o = 0; o < outputs; ++o) {
        for (int g = 0; g < F::GROUPS; ++g) {
          auto* own = C::scales(block, outputs, g) + o;
          const int64_t k = number * BLOCK_DEPTH + g * F::GROUP;
          own[0] = typename F::Scale(from.scale_of(o, k));
          if constexpr (F::OFFSETS) own[outputs] = typename F::Scale(from.template offset_for<F>(o, k));
        }
        for (int64_t k = 0; k < BLOCK_DEPTH; ++k) {
          uint8_t* place = block + C::integers(outputs, k) + o / OUTPUTS * C::NEURON;
          const int q = from.template integer_for<F>(o, number * BLOCK_DEPTH + k);
          const int64_t i = o % OUTPUTS;
          if constexpr (F::Integers::BITS == 8)
            place[i] = uint8_t(q);
          else if (i < OUTPUTS / 2)
            place[i] = uint8_t(q);  // low outputs come first
          else
            place[i - OUTPUTS / 2] |= uint8_t(q << 4);
        }
      }
    });
  });
  return packed;
}

// Adds the columns of `neurons` (ascending), each times its share, to the outputs from `first` on, OUTPUTS of them.
template <class F>
inline void add_columns(const uint8_t* packed, int64_t outputs, int64_t first, const int64_t* neurons,
                        const float* shares, int64_t count, float* sums) {
  using C = ColumnFormat<F>;
  constexpr int64_t VECTORS = OUTPUTS / LANES;
  for (int64_t i = 0; i < count;) {
    const int64_t group = neurons[i] / F::GROUP;
    auto* block = const_cast<uint8_t*>(packed) + neurons[i] / BLOCK_DEPTH * outputs * F::COLUMN_BYTES;
    Vec own[VECTORS];
    for (auto& each : own) each = Vec(0.0f);
    float total = 0;
    for (; i < count && neurons[i] / F::GROUP == group; ++i) {
      int8_t q[OUTPUTS];
      C::read(block + C::integers(outputs, neurons[i] % BLOCK_DEPTH) + first / OUTPUTS * C::NEURON, q);
      for (int64_t v = 0; v < VECTORS; ++v)
        own[v] = at::vec::fmadd(Vec(shares[i]), load_int8(q + v * LANES), own[v]);
      total += shares[i];
    }
    const auto* scale = C::scales(block, outputs, int(group % F::GROUPS)) + first;
    for (int64_t v = 0; v < VECTORS; ++v) {
      Vec sum = Vec::loadu(sums + v * LANES);
      if constexpr (F::ZERO != 0) own[v] = own[v] - Vec(float(F::ZERO) * total);
      sum = at::vec::fmadd(load(scale + v * LANES), own[v], sum);
      if constexpr (F::OFFSETS) sum = at::vec::fmadd(load(scale + outputs + v * LANES), Vec(total), sum);
      sum.store(sums + v * LANES);
    }
  }
}

// All columns: x [M, neurons] times a packed matrix of so many outputs -> [M, outputs]. Only a sparse MLP whose gates are
// not known to the kernels needs it.
Tensor columns_linear(const Tensor& x, const Tensor& packed, int64_t outputs) {
  const Tensor in = x.to(at::kFloat).contiguous(), y = at::empty({x.size(0), outputs}, x.options());
  TORCH_CHECK(packed.size(0) * BLOCK_DEPTH == x.size(1), "the matrix has another depth than the input");
  std::vector<int64_t> neurons(x.size(1));
  std::iota(neurons.begin(), neurons.end(), 0);
  with_format(packed.size(1) / outputs, true, [&](auto format) {
    FOR_DTYPE(x, [&] {
      auto* out = y.mutable_data_ptr<scalar_t>();
      parallel_dynamic(x.size(0) * outputs / OUTPUTS, 1, [&](int64_t begin, int64_t end) {
        for (int64_t at = begin; at < end; ++at) {
          const int64_t row = at * OUTPUTS / outputs, first = at * OUTPUTS % outputs;
          float sums[OUTPUTS] = {};
          add_columns<decltype(format)>(packed.const_data_ptr<uint8_t>(), outputs, first, neurons.data(),
                                        in.const_data_ptr<float>() + row * in.size(1), in.size(1), sums);
          store(out + row * outputs + first, sums, OUTPUTS);
        }
      });
    });
  });
  return y;
}

}  // namespace
