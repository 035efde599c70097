// The tensors of rotary embedding as every device takes them.
#pragma once

#include "rotary_embedding.h"
#include "torch/tensor_arguments.h"

namespace vtfast {

// Checks the inputs, each a kernel's input already, and describes them; the output is left out.
RotaryEmbeddingParams describe(const Tensor& qkv, const Tensor& cos, const Tensor& sin,
                               const std::vector<int64_t>& grid, int64_t num_heads, int64_t num_prefix, bool transpose);

}  // namespace vtfast
