#include "torch/grid_attention_arguments.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

namespace vtfast {
namespace {

DataType data_type(const Tensor& tensor) {
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
      STD_TORCH_CHECK(false, "qkv must be float32, bfloat16, float16 or float64");
  }
}

const void* address(const std::optional<Tensor>& tensor) { return tensor ? tensor->const_data_ptr() : nullptr; }

}  // namespace

ScalarType acc_type(DataType type) { return type == DataType::kFloat64 ? ScalarType::Double : ScalarType::Float; }

Tensor as_kernel_input(const Tensor& tensor, size_t alignment) {
  const Tensor whole = torch::stable::contiguous(tensor);
  const bool aligned = reinterpret_cast<uintptr_t>(whole.const_data_ptr()) % alignment == 0;
  return aligned ? whole : torch::stable::clone(whole);
}

void check_tensor(const Tensor& tensor, const char* name, const Tensor& on_device_of, ScalarType type,
                  std::initializer_list<int64_t> shape) {
  STD_TORCH_CHECK(tensor.device() == on_device_of.device(), name, " must be on the device of qkv");
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

GridAttentionParams describe(GridAttentionInputs& inputs, const GridAttentionSettings& settings, size_t alignment) {
  auto& [qkv, bias_table, pad_qkv, key_mask] = inputs;
  qkv = as_kernel_input(qkv, alignment);
  for (std::optional<Tensor>* tensor : {&bias_table, &pad_qkv, &key_mask}) {
    if (*tensor) *tensor = as_kernel_input(**tensor, alignment);
  }
  STD_TORCH_CHECK(qkv.dim() == 3, "qkv must have 3 dimensions, got ", qkv.dim());
  GridAttentionParams p = make_params(settings, data_type(qkv), qkv.size(0), qkv.size(2));

  check_tensor(qkv, "qkv", qkv, qkv.scalar_type(), {p.batch, p.num_tokens(), 3 * p.channels()});
  if (bias_table) {
    check_tensor(*bias_table, "bias_table", qkv, acc_type(p.data_type), {p.bias.table_size(), p.num_heads});
  }
  if (pad_qkv) check_tensor(*pad_qkv, "pad_qkv", qkv, qkv.scalar_type(), {3 * p.channels()});
  if (key_mask) check_tensor(*key_mask, "key_mask", qkv, ScalarType::Bool, {p.batch, p.geometry.num_tokens()});
  p.qkv = qkv.const_data_ptr();
  p.bias_table = address(bias_table);
  p.pad_qkv = address(pad_qkv);
  p.key_mask = static_cast<const bool*>(address(key_mask));
  return p;
}

}  // namespace vtfast
