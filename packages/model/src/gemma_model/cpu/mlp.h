// The MLP: down_proj(gelu(gate_proj(x)) * up_proj(x)), dense or with activation sparsity.
//
// A sparse layer subtracts a cut-off from its gates, mean + zscore * standard deviation, and sets the negative ones
// to zero (Spark Transformer, https://arxiv.org/abs/2506.06644).

#pragma once

#include "linear.h"
#include "packed_columns.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>

#include <functional>
#include <numeric>

namespace {

// mean + sparsity_zscore * standard deviation of the gates of a token.
template <typename T>
float sparsity_cutoff(const T* gate, int64_t width, double sparsity_zscore) {
  Vec sum(0.0f), squares(0.0f);
  for (int64_t i = 0; i < width; i += LANES) sum = sum + load(gate + i);
  const float mean = sum_lanes(sum) / float(width);
  for (int64_t i = 0; i < width; i += LANES) {
    const Vec off = load(gate + i) - Vec(mean);
    squares = at::vec::fmadd(off, off, squares);
  }
  return mean + std::sqrt(sum_lanes(squares) / float(width)) * float(sparsity_zscore);
}

// gelu(gate) * up: gate_up [M, 2 x I] -> [M, I]. `sparsity_zscore` NaN: no sparsity.
Tensor gated_gelu(const Tensor& gate_up, double sparsity_zscore) {
  const int64_t width = gate_up.size(1) / 2;
  const Tensor y = at::empty({gate_up.size(0), width}, gate_up.options());
  FOR_DTYPE(gate_up, [&] {
    const auto* from = gate_up.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    parallel_rows(gate_up.size(0), width, [&](int64_t row) {
      const auto *gate = from + row * 2 * width, *up = gate + width;
      const bool sparse = !std::isnan(sparsity_zscore);
      const Vec cutoff(sparse ? sparsity_cutoff(gate, width, sparsity_zscore) : 0.0f);
      for (int64_t i = 0; i < width; i += LANES) {
        Vec open = load(gate + i);
        if (sparse) open = at::vec::maximum(open - cutoff, Vec(0.0f));
        store(to + row * width + i, gelu(open) * load(up + i));
      }
    });
  });
  return y;
}

// gelu(gate_proj(x)) * up_proj(x): x [M, H]; gate, up [I, H] -> [M, I].
Tensor gate_up(const Tensor& x, const Tensor& gate, const Tensor& up) {
  const int64_t rows = x.size(0), width = columns_of(gate);
  const Tensor y = at::empty({rows, width}, x.options());
  FOR_DTYPE(x, [&] {
    auto* to = y.mutable_data_ptr<scalar_t>();
    matmul(std::array{gate, up}, x, [&](int64_t first, int64_t count, float* sums) {
      for (int64_t i = 0; i < rows * count; i += LANES) {
        const int64_t n = std::min(LANES, rows * count - i);
        (gelu(Vec::loadu(sums + i, n)) * Vec::loadu(sums + rows * count + i, n)).store(sums + i, n);
      }
      for (int64_t r = 0; r < rows; ++r) store(to + r * width + first, sums + r * count, count);
    });
  });
  return y;
}

// The gates of all rows, minus the cut-off of each row -> gates [rows, I]. Returns for each neuron a bit per row:
// whether its gate is open, that is positive. x [rows, H], at most 64 rows; gate [I, H].
inline std::vector<uint64_t> open_gates(const Tensor& x, const Tensor& gate, double sparsity_zscore, float* gates) {
  const int64_t rows = x.size(0), neurons = columns_of(gate);
  matmul(std::array{gate}, x, [&](int64_t first, int64_t count, const float* sums) {
    for (int64_t r = 0; r < rows; ++r) std::copy_n(sums + r * count, count, gates + r * neurons + first);
  });
  std::vector<uint64_t> open(neurons, 0);
  for (int64_t r = 0; r < rows; ++r) {
    float* g = gates + r * neurons;
    const float cutoff = sparsity_cutoff(g, neurons, sparsity_zscore);
    for (int64_t i = 0; i < neurons; ++i) {
      g[i] -= cutoff;
      open[i] |= uint64_t(g[i] > 0) << r;
    }
  }
  return open;
}

// The neurons that are open in at least one row.
struct OpenNeurons {
  int64_t rows, neurons;
  std::vector<uint64_t> open;  // a bit for each row
  std::vector<int64_t> read;   // those with a bit, ascending

  OpenNeurons(std::vector<uint64_t> bits, int64_t rows) : rows(rows), neurons(int64_t(bits.size())), open(std::move(bits)) {
    for (int64_t i = 0; i < neurons; ++i)
      if (open[i]) read.push_back(i);
  }

  template <typename Work>
  void each_row(uint64_t bits, const Work& work) const {
    for (; bits; bits &= bits - 1) work(int64_t(__builtin_ctzll(bits)));
  }
};

// gates[row, neuron] = gelu(gate) * up_proj(x), where the gate is open. x [rows, H], up [I, H].
inline void multiply_by_up(const Tensor& x, const Tensor& up, const OpenNeurons& neurons, float* gates) {
  const auto finish = [&](int64_t row, int64_t neuron, float through) {
    float& g = gates[row * neurons.neurons + neuron];
    float lanes[LANES];
    gelu(Vec(g)).store(lanes);
    g = lanes[0] * through;
  };
  const int64_t count = int64_t(neurons.read.size()), width = x.size(1);
  if (!is_packed(up)) {
    FOR_DTYPE(up, [&] {
      const auto inputs = prepare_input<scalar_t>(x);
      const Matrix<scalar_t> ups(up);
      at::parallel_for(0, count, std::max<int64_t>(1, GRAIN / width), [&](int64_t begin, int64_t end) {
        for (int64_t at = begin; at < end; ++at)
          neurons.each_row(neurons.open[neurons.read[at]], [&](int64_t r) {
            float through;
            tile<1, 1>(ups, neurons.read[at], inputs.data() + r * width, &through);
            finish(r, neurons.read[at], through);
          });
      });
    });
    return;
  }
  with_format(up.size(2), false, [&](auto format) {
    using F = decltype(format);
    const QuantizedInput inputs = quantize_input(x, F::GROUPS);
    const auto* blocks = up.const_data_ptr<uint8_t>();
    parallel_dynamic(up.size(0), std::max<int64_t>(1, GRAIN / width), [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const uint64_t* open = neurons.open.data() + block * BLOCK_COLUMNS;
        int64_t rows[ROW_BLOCK], count = 0;
        neurons.each_row(std::accumulate(open, open + BLOCK_COLUMNS, uint64_t(0), std::bit_or<>()),
                         [&](int64_t r) { rows[count++] = r; });
        float through[ROW_BLOCK * BLOCK_COLUMNS];
        packed_tiles<F>(blocks + block * up.stride(0), inputs, rows, count, through, BLOCK_COLUMNS);
        for (int64_t i = 0; i < count; ++i)
          for (int64_t c = 0; c < BLOCK_COLUMNS; ++c)
            if (open[c] >> rows[i] & 1) finish(rows[i], block * BLOCK_COLUMNS + c, through[i * BLOCK_COLUMNS + c]);
      }
    });
  });
}

// The products of the open neurons and `down`, dense [I, H] (transposed) -> y [rows, H].
template <typename T>
void multiply_by_down(const Tensor& down, const OpenNeurons& neurons, const float* gates, Tensor y) {
  const int64_t width = y.size(1), count = int64_t(neurons.read.size()), rows = neurons.rows;
  const auto* down_rows = down.const_data_ptr<T>();
  auto* out = y.mutable_data_ptr<T>();
  at::parallel_for(0, width / LANES, std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, count * LANES)),
                   [&](int64_t begin, int64_t end) {
                     const int64_t from = begin * LANES, strip = (end - begin) * LANES;
                     std::vector<float> sums(rows * strip, 0.0f);
                     for (const int64_t neuron : neurons.read)
                       neurons.each_row(neurons.open[neuron], [&](int64_t r) {
                         const Vec share(gates[r * neurons.neurons + neuron]);
                         const auto* column = down_rows + neuron * width + from;
                         for (int64_t i = 0; i < strip; i += LANES) {
                           float* sum = sums.data() + r * strip + i;
                           at::vec::fmadd(share, load(column + i), Vec::loadu(sum)).store(sum);
                         }
                       });
                     for (int64_t r = 0; r < rows; ++r)
                       for (int64_t i = 0; i < strip; i += LANES)
                         store(out + r * width + from + i, Vec::loadu(sums.data() + r * strip + i));
                   });
}

// The same with packed columns [I / BLOCK_DEPTH, bytes]: see packed_columns.h.
template <typename T>
void multiply_by_packed_down(const Tensor& down, const OpenNeurons& neurons, const float* gates, Tensor y) {
  const int64_t width = y.size(1), rows = neurons.rows;
  std::vector<std::vector<int64_t>> open(rows);
  std::vector<std::vector<float>> shares(rows);
  for (const int64_t neuron : neurons.read)
    neurons.each_row(neurons.open[neuron], [&](int64_t r) {
      open[r].push_back(neuron);
      shares[r].push_back(gates[r * neurons.neurons + neuron]);
    });
  auto* out = y.mutable_data_ptr<T>();
  const int64_t grain = std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, int64_t(neurons.read.size()) * OUTPUTS));
  with_format(down.size(1) / width, true, [&](auto format) {
    parallel_dynamic(width / OUTPUTS, grain, [&](int64_t begin, int64_t end) {
      for (int64_t strip = begin; strip < end; ++strip)
        for (int64_t r = 0; r < rows; ++r) {
          float sums[OUTPUTS] = {};
          add_columns<decltype(format)>(down.const_data_ptr<uint8_t>(), width, strip * OUTPUTS, open[r].data(),
                                        shares[r].data(), int64_t(open[r].size()), sums);
          store(out + r * width + strip * OUTPUTS, sums, OUTPUTS);
        }
    });
  });
}

// A sparse MLP. It reads only those neurons of `up` and `down` whose gate is open in at least one row. x [M, H], M at
// most ROW_BLOCK; gate, up [I, H]; down [I, H] (transposed) or packed columns -> [M, H].
Tensor sparse_mlp(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down, double sparsity_zscore) {
  const int64_t rows = x.size(0);
  TORCH_CHECK(rows <= ROW_BLOCK, "at most ", ROW_BLOCK, " rows");
  const Tensor y = at::empty_like(x);
  std::vector<float> gates(rows * columns_of(gate));
  const OpenNeurons neurons(open_gates(x, gate, sparsity_zscore, gates.data()), rows);
  multiply_by_up(x, up, neurons, gates.data());
  FOR_DTYPE(x, [&] {
    is_packed(down) ? multiply_by_packed_down<scalar_t>(down, neurons, gates.data(), y)
                    : multiply_by_down<scalar_t>(down, neurons, gates.data(), y);
  });
  return y;
}

// The MLP, dense or sparse: x [M, H] -> [M, H]. gate, up [I, H]; down [H, I], or packed columns.
Tensor mlp(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down, double sparsity_zscore) {
  if (std::isnan(sparsity_zscore)) return linear(gate_up(x, gate, up), down);
  std::vector<Tensor> some;
  for (const Tensor& rows : x.split(ROW_BLOCK)) some.push_back(sparse_mlp(rows, gate, up, is_packed(down) ? down : down.t(), sparsity_zscore));
  return some.size() == 1 ? some[0] : at::cat(some);
}

// gelu(gate) * x: both [M, P] -> [M, P].
Tensor gelu_multiply(const Tensor& gate, const Tensor& x) {
  TORCH_CHECK(x.size(0) == gate.size(0), x.size(0), " per-layer inputs for ", gate.size(0), " tokens");
  const int64_t width = gate.size(1), stride = x.stride(0);
  const Tensor y = at::empty_like(gate);
  FOR_DTYPE(gate, [&] {
    const auto *g = gate.const_data_ptr<scalar_t>(), *in = x.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    parallel_rows(gate.size(0), width, [&](int64_t row) {
      for (int64_t i = 0; i < width; i += LANES)
        store(to + row * width + i, gelu(load(g + row * width + i)) * load(in + row * stride + i));
    });
  });
  return y;
}

}  // namespace
