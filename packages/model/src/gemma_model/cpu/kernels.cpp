// CPU kernels for which PyTorch has no single operation; see each header. This is the only translation unit, because
// PyTorch's headers take most of the time to compile.
//
// M tokens, N AltUp streams, H hidden, I intermediate size.

#include "attention.h"
#include "gemma3n/decoder_layer.h"
#include "is_finite.h"
#include "linear.h"
#include "mlp.h"
#include "norms.h"

#include <torch/library.h>

TORCH_LIBRARY(gemma, library) {
  library.def("is_finite(Tensor x) -> bool", &is_finite);
  library.def("pack_matrix(Tensor quants, Tensor scales, Tensor? offsets, int bits, int bytes) -> Tensor",
              &pack_matrix);
  library.def("pack_columns(Tensor quants, Tensor scales, Tensor? offsets, int bits, int bytes) -> Tensor",
              &pack_columns);
  library.def("columns_linear(Tensor x, Tensor packed, int outputs) -> Tensor", &columns_linear);
  library.def("packed_rows(Tensor packed, Tensor ids) -> Tensor", &packed_rows);
  library.def("linear(Tensor x, Tensor w) -> Tensor", &linear);
  library.def("logits(Tensor x, Tensor w, float cap) -> Tensor", &logits);
  library.def("rms_norm(Tensor x, Tensor weight, float eps) -> Tensor", &rms_norm);
  library.def("add_norm(Tensor x, Tensor y, Tensor weight, float eps) -> Tensor", &add_norm);
  library.def("gated_gelu(Tensor gate_up, float sparsity_zscore) -> Tensor", &gated_gelu);
  library.def("sparse_mlp(Tensor x, Tensor gate, Tensor up, Tensor down, float sparsity_zscore) -> Tensor",
              &sparse_mlp);
  library.def(
      "gemma3n_layers(Tensor streams, Tensor[] per_layer_inputs, Tensor[] parts, float[] sparsity_zscores, "
      "Tensor(a!)[] kv_cache, int[] layer_types, Tensor[] cos, Tensor[] sin, int[] windows, Tensor chunks, int active, "
      "int queries, float eps, int last, Tensor? kept) -> Tensor",
      &gemma3n_layers);
}
