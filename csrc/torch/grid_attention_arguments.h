// The tensors of grid attention as every device takes them: checks that keep memory safe, and the description that the
// kernels work from. vtfast/ops checks what users get wrong.
#pragma once

#include <optional>

#include "torch/grid_attention_settings.h"
#include "torch/tensor_arguments.h"

namespace vtfast {

// The inputs of a call that the forward and the backward pass share.
struct GridAttentionInputs {
  Tensor qkv;
  std::optional<Tensor> bias_table, pad_qkv, key_mask;
};

// Checks the inputs, makes each of them a kernel's input and describes them; outputs are left out.
GridAttentionParams describe(GridAttentionInputs& inputs, const GridAttentionSettings& settings, size_t alignment);

}  // namespace vtfast
