// The decoder layers of Gemma 3n, all in one operation; the only file that knows how a layer is put together.
//
// M new tokens, N AltUp streams, H hidden, d head_dim.

#pragma once

#include "../attention.h"
#include "../layer_type_state.h"
#include "../linear.h"
#include "../mlp.h"
#include "../norms.h"
#include "altup.h"

#include <ATen/ops/mul.h>

namespace {

// The weights of a layer, in the order in which cpu_layers.py passes them.
enum Part : int64_t {
  ROUTER_NORM,
  MODALITY_ROUTER,
  PREDICTION_COEFS,
  CORRECTION_COEFS,
  CORRECT_OUTPUT_SCALE,
  INPUT_LAYERNORM,
  QKV_PROJ,
  QK_NORM,
  O_PROJ,
  POST_ATTENTION_LAYERNORM,
  LAUREL_LINEAR_LEFT,
  LAUREL_LINEAR_RIGHT,
  POST_LAUREL_NORM,
  PRE_FEEDFORWARD_LAYERNORM,
  GATE_PROJ,
  UP_PROJ,
  DOWN_PROJ,
  POST_FEEDFORWARD_LAYERNORM,
  PER_LAYER_INPUT_GATE,
  PER_LAYER_PROJECTION,
  POST_PER_LAYER_INPUT_NORM,
  PARTS
};

// What is the same in all layers.
struct DecoderConstants {
  int64_t active, queries;  // of AltUp; number of query heads
  double eps;
};

// (active stream + norm(attended) + x + norm(laurel)) / sqrt(2): streams [M, N, H], the others [M, H].
Tensor add_attention_and_laurel(const Tensor& streams, int64_t active, const Tensor& x, const Tensor& attended,
                                const Tensor& attended_weight, const Tensor& laurel, const Tensor& laurel_weight,
                                double eps) {
  const int64_t width = x.size(1), count = streams.size(1);
  const Tensor y = at::empty_like(x);
  FOR_DTYPE(x, [&] {
    const auto* s = streams.const_data_ptr<scalar_t>() + active * width;
    const auto *in = x.const_data_ptr<scalar_t>(), *a = attended.const_data_ptr<scalar_t>();
    const auto *l = laurel.const_data_ptr<scalar_t>(), *aw = attended_weight.const_data_ptr<scalar_t>();
    const auto* lw = laurel_weight.const_data_ptr<scalar_t>();
    auto* to = y.mutable_data_ptr<scalar_t>();
    parallel_rows(x.size(0), width, [&](int64_t row) {
      const int64_t at = row * width;
      const Vec as(inverse_rms(a + at, width, eps)), ls(inverse_rms(l + at, width, eps));
      for (int64_t i = 0; i < width; i += LANES) {
        const Vec sum = load(s + row * count * width + i) + load(a + at + i) * as * load(aw + i) + load(in + at + i) +
                        load(l + at + i) * ls * load(lw + i);
        store(to + at + i, sum * Vec(float(M_SQRT1_2)));
      }
    });
  });
  return y;
}

// One layer. With `kept` rows, all that follows the keys and values is computed for these rows alone.
Tensor decoder_layer(const Tensor& streams, Tensor per_layer_input, const Tensor* part, double sparsity_zscore,
                     LayerTypeState& state, const Tensor& kv_cache, const DecoderConstants& constants,
                     bool already_kept, const Tensor* kept) {
  const auto [active, queries, eps] = constants;
  const bool stores = part[QK_NORM].size(0) > queries;
  const TokenPositions &positions = already_kept ? state.kept : state.all,
                       &kept_positions = kept ? state.kept : positions;
  if (stores) state.copy_window_in(kv_cache);
  Tensor predicted =
      altup_predict(streams, active, part[ROUTER_NORM], part[MODALITY_ROUTER], part[PREDICTION_COEFS], eps);
  Tensor x = rms_norm(predicted.select(1, active), part[INPUT_LAYERNORM], eps);
  Tensor query = norm_rotate_store(linear(x, part[QKV_PROJ]), part[QK_NORM], positions.cos, positions.sin, eps, queries,
                                   stores ? std::optional<Tensor>(state.seen(kv_cache)) : std::nullopt, positions.slots,
                                   positions.positions);
  if (stores) state.copy_result_out(kv_cache);
  if (kept) {
    if (kept->numel() == 0) return streams.narrow(0, 0, 0);
    for (Tensor* each : {&predicted, &x, &query, &per_layer_input}) *each = each->index_select(0, *kept);
  }
  const Tensor attended =
      linear(attention(query, state.seen(kv_cache), kept_positions.slots, kept_positions.positions, state.window),
             part[O_PROJ]);
  const Tensor laurel = linear(linear(x, part[LAUREL_LINEAR_LEFT]), part[LAUREL_LINEAR_RIGHT]);
  x = add_attention_and_laurel(predicted, active, x, attended, part[POST_ATTENTION_LAYERNORM], laurel,
                               part[POST_LAUREL_NORM], eps);
  const Tensor y = rms_norm(x, part[PRE_FEEDFORWARD_LAYERNORM], eps);
  x = add_norm(x, mlp(y, part[GATE_PROJ], part[UP_PROJ], part[DOWN_PROJ], sparsity_zscore),
               part[POST_FEEDFORWARD_LAYERNORM], eps);
  const Tensor corrected =
      altup_correct(predicted, active, x, part[ROUTER_NORM], part[MODALITY_ROUTER], part[CORRECTION_COEFS], eps);
  Tensor active_stream = corrected.select(1, active);
  if (part[CORRECT_OUTPUT_SCALE].numel()) active_stream = at::mul(active_stream, part[CORRECT_OUTPUT_SCALE]);
  const Tensor gate = gelu_multiply(linear(active_stream, part[PER_LAYER_INPUT_GATE]), per_layer_input);
  add_to_other_streams(corrected, linear(gate, part[PER_LAYER_PROJECTION]), part[POST_PER_LAYER_INPUT_NORM], eps);
  return corrected;
}

// All layers: streams [M, N, H] -> [M, N, H], or of the rows `kept` alone: only these go through layer `last` (the
// last that stores keys and values) after its keys and values, and through the layers after it. That is exact, for no
// other token depends on these results.
//
// `chunks` [B, 3] are slot, first position and number of tokens of each sequence. It is one operation, so that other
// Python threads can run meanwhile.
Tensor gemma3n_layers(const Tensor& streams, at::TensorList per_layer_inputs, at::TensorList parts,
                      at::ArrayRef<double> sparsity_zscores, at::TensorList kv_cache, at::IntArrayRef layer_types,
                      at::TensorList cos, at::TensorList sin, at::IntArrayRef windows, const Tensor& chunks,
                      int64_t active, int64_t queries, double eps, int64_t last, const std::optional<Tensor>& kept) {
  const int64_t count = int64_t(layer_types.size());
  TORCH_CHECK(int64_t(parts.size()) == count * PARTS, "a layer has ", int64_t(PARTS), " parts");
  std::vector<SequenceChunk> all_chunks;
  for (int64_t b = 0; b < chunks.size(0); ++b) {
    const auto* chunk = chunks.const_data_ptr<int64_t>() + 3 * b;
    all_chunks.push_back({chunk[0], chunk[1], chunk[2]});
  }
  std::vector<LayerTypeState> states;
  for (size_t type = 0; type < cos.size(); ++type) {
    const auto number = std::find(layer_types.begin(), layer_types.end(), int64_t(type)) - layer_types.begin();
    states.emplace_back(all_chunks, windows[type], cos[type], sin[type], kv_cache[number], kept);
  }
  Tensor x = streams.contiguous();
  for (int64_t i = 0; i < count && x.size(0) > 0; ++i)
    x = decoder_layer(x, per_layer_inputs.at(i), parts.data() + i * PARTS, sparsity_zscores[i], states[layer_types[i]],
                      kv_cache[i], {active, queries, eps}, i > last, kept && i == last ? &*kept : nullptr);
  return x;
}

}  // namespace
