#include "torch/tensor_arguments.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

namespace vtfast {

DataType data_type(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return DataType::kFloat32;
    case ScalarType::BFloat16:
      return DataType::kBFloat16;
    case ScalarType::Half:
      return DataType::kFloat16;
    case ScalarType::Double:
      return DataType::kFloat64;
    default:
      STD_TORCH_CHECK(false, name, " must be float32, bfloat16, float16 or float64");
  }
}

ScalarType acc_type(DataType type) { return type == DataType::kFloat64 ? ScalarType::Double : ScalarType::Float; }

Tensor as_kernel_input(const Tensor& tensor, size_t alignment) {
  const Tensor whole = torch::stable::contiguous(tensor);
  const bool aligned = reinterpret_cast<uintptr_t>(whole.const_data_ptr()) % alignment == 0;
  return aligned ? whole : torch::stable::clone(whole);
}

namespace {

// Itself if its channels, the last dimension, are neighbours and all tokens start at multiples of `alignment` bytes.
Tensor with_dense_channels(const Tensor& tensor, size_t alignment) {
  const int64_t size = tensor.element_size(), channels = tensor.dim() - 1;
  bool fits = tensor.stride(channels) == 1 && reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % alignment == 0;
  for (int64_t axis = 0; axis < channels; ++axis) fits = fits && tensor.stride(axis) * size % alignment == 0;
  return fits ? tensor : as_kernel_input(tensor, alignment);
}

}  // namespace

Tensor as_token_input(const Tensor& tensor, const char* name, size_t alignment) {
  STD_TORCH_CHECK(tensor.dim() == 3, name, " must have 3 dimensions, got ", tensor.dim());
  return with_dense_channels(tensor, alignment);
}

TokenRows token_rows(const Tensor& tensor) { return {tensor.const_data_ptr(), tensor.stride(0), tensor.stride(1)}; }

Tensor as_grid_input(const Tensor& tensor, const char* name, size_t alignment) {
  STD_TORCH_CHECK(tensor.dim() == 5, name, " must have 5 dimensions, got ", tensor.dim());
  return with_dense_channels(tensor, alignment);
}

TokenGrid token_grid(const Tensor& tensor) {
  return {tensor.const_data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3)};
}

void check_tensor(const Tensor& tensor, const char* name, const Tensor& on_device_of, ScalarType type,
                  std::initializer_list<int64_t> shape) {
  STD_TORCH_CHECK(tensor.device() == on_device_of.device(), name, " must be on the device of the tokens");
  STD_TORCH_CHECK(tensor.scalar_type() == type, name, " has the wrong dtype");
  STD_TORCH_CHECK(tensor.dim() == static_cast<int64_t>(shape.size()), name, " must have ", shape.size(),
                  " dimensions, got ", tensor.dim());
  int64_t axis = 0;
  for (const int64_t size : shape) {
    STD_TORCH_CHECK(tensor.size(axis) == size, name, " must have size ", size, " along dimension ", axis, ", got ",
                    tensor.size(axis));
    ++axis;
  }
}

Tensor empty(const Tensor& like, const std::vector<int64_t>& shape, std::optional<ScalarType> type) {
  return torch::stable::new_empty(like, shape, type);
}

const void* address(const std::optional<Tensor>& tensor) { return tensor ? tensor->const_data_ptr() : nullptr; }

Tensor empty_gradient(const std::optional<Tensor>& input, const Tensor& like) {
  return input ? torch::stable::new_empty(*input, input->sizes()) : empty(like, {0});
}

}  // namespace vtfast
