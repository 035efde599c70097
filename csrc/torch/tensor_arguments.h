// Tensors as the kernels of every operation and device take them, and the checks that keep memory safe. vtfast/ops
// checks what users get wrong.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <vector>

#include "data_type.h"

namespace vtfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Of a tensor that kernels know; `name` is for the message where they do not.
DataType data_type(const Tensor& tensor, const char* name);

ScalarType acc_type(DataType type);

// The tensor in one piece, starting at a multiple of `alignment` bytes: itself if it is so, else a copy.
Tensor as_kernel_input(const Tensor& tensor, size_t alignment);

void check_tensor(const Tensor& tensor, const char* name, const Tensor& on_device_of, ScalarType type,
                  std::initializer_list<int64_t> shape);

// A new tensor on the device of `like`, and of its dtype if no other is given.
Tensor empty(const Tensor& like, const std::vector<int64_t>& shape, std::optional<ScalarType> type = std::nullopt);

}  // namespace vtfast
