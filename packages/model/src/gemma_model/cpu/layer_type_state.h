// What all attention layers of one type (sliding or full) share in a step: the positions of the new tokens, and a
// copy of the window when the new tokens would overwrite what some of them still see.

#pragma once

#include "vec.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <optional>
#include <vector>

namespace {

// Positions of new tokens: cos, sin [M, 1, d]; slots, positions [M] int64.
struct TokenPositions {
  Tensor cos, sin, slots, positions;

  TokenPositions of(const Tensor& rows) const {
    return {cos.index_select(0, rows), sin.index_select(0, rows), slots.index_select(0, rows),
            positions.index_select(0, rows)};
  }
};

// The new tokens of one sequence.
struct SequenceChunk {
  int64_t slot, start, tokens;
};

// The layers of one type. Attention reads the cache itself; but if the new tokens would overwrite what some of them
// still see, it reads a copy with the window before them, followed by themselves, one slot for each sequence.
struct LayerTypeState {
  const std::vector<SequenceChunk>& chunks;
  int64_t window;
  TokenPositions all, kept;  // of all tokens; of those that are kept
  Tensor copy;               // [chunks, 2 x kv_heads, columns, d], undefined if it is not needed

  LayerTypeState(const std::vector<SequenceChunk>& chunks, int64_t window, const Tensor& cos, const Tensor& sin,
                 const Tensor& layer, const std::optional<Tensor>& kept_rows)
      : chunks(chunks), window(window) {
    int64_t columns = 0;
    bool overwrites = false;
    for (const SequenceChunk& chunk : chunks) {
      columns = std::max(columns, tokens_before(chunk) + chunk.tokens);
      overwrites |= chunk.start + chunk.tokens > layer.size(2) && chunk.tokens > layer.size(2) - window + 1;
    }
    if (overwrites) copy = at::empty({int64_t(chunks.size()), layer.size(1), columns, layer.size(3)}, layer.options());
    std::vector<int64_t> slots, positions;
    for (size_t b = 0; b < chunks.size(); ++b)
      for (int64_t t = 0; t < chunks[b].tokens; ++t) {
        slots.push_back(overwrites ? int64_t(b) : chunks[b].slot);
        positions.push_back(t + (overwrites ? tokens_before(chunks[b]) : chunks[b].start));
      }
    all = {cos, sin, at::tensor(slots), at::tensor(positions)};
    kept = kept_rows ? all.of(*kept_rows) : all;
  }

  // The number of tokens before a chunk that its first token sees.
  int64_t tokens_before(const SequenceChunk& chunk) const { return std::min(chunk.start, window - 1); }

  const Tensor& seen(const Tensor& layer) const { return copy.defined() ? copy : layer; }

  // Copies from a layer of the cache what the new tokens see before them, and to it what the layer keeps of them.
  void copy_window_in(const Tensor& layer) {
    if (!copy.defined()) return;
    for (size_t b = 0; b < chunks.size(); ++b) copy_columns<true>(b, layer, 0, tokens_before(chunks[b]));
  }
  void copy_result_out(const Tensor& layer) {
    if (!copy.defined()) return;
    for (size_t b = 0; b < chunks.size(); ++b) {
      const int64_t end = tokens_before(chunks[b]) + chunks[b].tokens;
      copy_columns<false>(b, layer, end - std::min(chunks[b].tokens, layer.size(2)), end);
    }
  }

  template <bool TO_COPY>
  void copy_columns(size_t b, const Tensor& layer, int64_t begin, int64_t end) {
    const int64_t bytes = layer.size(3) * layer.element_size(), ring = layer.size(2), columns = copy.size(2);
    const int64_t first = chunks[b].start - tokens_before(chunks[b]);
    auto *copy_data = (char*)copy.mutable_data_ptr(), *cache_data = (char*)layer.mutable_data_ptr();
    for (int64_t h = 0; h < layer.size(1); ++h)
      for (int64_t p = begin; p < end; ++p) {
        char* in_copy = copy_data + ((int64_t(b) * layer.size(1) + h) * columns + p) * bytes;
        char* in_cache = cache_data + ((chunks[b].slot * layer.size(1) + h) * ring + (first + p) % ring) * bytes;
        TO_COPY ? std::copy_n(in_cache, bytes, in_copy) : std::copy_n(in_copy, bytes, in_cache);
      }
  }
};

}  // namespace
