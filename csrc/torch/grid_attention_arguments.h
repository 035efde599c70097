// The tensors of grid attention as every device takes them: checks that keep memory safe, and the description that the
// kernels work from. vtfast/ops checks what users get wrong.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <optional>

#include "torch/grid_attention_settings.h"

namespace vtfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The inputs of a call that the forward and the backward pass share.
struct GridAttentionInputs {
  Tensor qkv;
  std::optional<Tensor> bias_table, pad_qkv, key_mask;
};

ScalarType acc_type(DataType type);

// The tensor in one piece, starting at a multiple of `alignment` bytes: itself if it is so, else a copy.
Tensor as_kernel_input(const Tensor& tensor, size_t alignment);

void check_tensor(const Tensor& tensor, const char* name, const Tensor& on_device_of, ScalarType type,
                  std::initializer_list<int64_t> shape);

// Checks the inputs, makes each of them a kernel's input and describes them; outputs are left out.
GridAttentionParams describe(GridAttentionInputs& inputs, const GridAttentionSettings& settings, size_t alignment);

}  // namespace vtfast
