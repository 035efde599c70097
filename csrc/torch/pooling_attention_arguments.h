// The tensors of pooling attention as every device takes them.
#pragma once

#include "pooling_attention.h"
#include "torch/tensor_arguments.h"

namespace vtfast {

struct PoolingAttentionInputs {
  Tensor q, k, v;
  std::optional<Tensor> rel_pos[3];  // t, h, w
};

// As the schema lists them.
struct PoolingAttentionSettings {
  std::vector<int64_t> q_grid, k_grid;
  int64_t num_heads;
  int64_t num_prefix;
  bool residual;
  bool residual_prefix;
  double scale;
};

// Makes the inputs those of a kernel, checks them and describes them; the outputs are left out.
PoolingAttentionParams describe(PoolingAttentionInputs& inputs, const PoolingAttentionSettings& settings,
                                size_t alignment);

}  // namespace vtfast
