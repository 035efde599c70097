// Tensors as the kernels of every operation and device take them, and the checks that keep memory safe. vtfast/ops
// checks what users get wrong.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <vector>

#include "data_type.h"
#include "token_rows.h"

namespace vtfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Of a tensor that kernels know; `name` is for the message where they do not.
DataType data_type(const Tensor& tensor, const char* name);

ScalarType acc_type(DataType type);

// The tensor in one piece, starting at a multiple of `alignment` bytes: itself if it is so, else a copy.
Tensor as_kernel_input(const Tensor& tensor, size_t alignment);

// The same for tokens [B, N, C], whose batches and tokens may lie apart, each at a multiple of `alignment` bytes.
Tensor as_token_input(const Tensor& tensor, const char* name, size_t alignment);

// Of such a tensor.
TokenRows token_rows(const Tensor& tensor);

// The same for tokens [B, T, H, W, C], which may lie apart along every axis.
Tensor as_grid_input(const Tensor& tensor, const char* name, size_t alignment);

TokenGrid token_grid(const Tensor& tensor);

void check_tensor(const Tensor& tensor, const char* name, const Tensor& on_device_of, ScalarType type,
                  std::initializer_list<int64_t> shape);

// A new tensor on the device of `like`, and of its dtype if no other is given.
Tensor empty(const Tensor& like, const std::vector<int64_t>& shape, std::optional<ScalarType> type = std::nullopt);

// The address of what may be left out.
const void* address(const std::optional<Tensor>& tensor);

// What a backward returns for an input that may be left out: room for its gradient, or an empty tensor.
Tensor empty_gradient(const std::optional<Tensor>& input, const Tensor& like);

}  // namespace vtfast
