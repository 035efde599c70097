#include "torch/grid_attention_arguments.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/Exception.h>

namespace vtfast {
namespace {

using Settings = GridAttentionSettings;

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

Axis make_axis(const Settings& s, size_t axis) {
  for (const Sizes* sizes : {&s.grid, &s.block, &s.dilation, &s.shift, &s.bias_window}) {
    STD_TORCH_CHECK(sizes->size() == 3, "grid, block, dilation, shift and bias_window must have three elements");
  }
  const int64_t size = s.grid[axis], block = s.block[axis], dilation = s.dilation[axis], shift = s.shift[axis];
  STD_TORCH_CHECK(size > 0 && block > 0 && dilation > 0, "grid, block and dilation must be positive");
  STD_TORCH_CHECK(shift >= 0 && shift < block * dilation, "shift must be smaller than block * dilation");
  STD_TORCH_CHECK(s.bias_window[axis] >= block, "bias_window must be at least block");
  return Axis::make(size, block, dilation, shift);
}

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

GridAttentionParams describe(GridAttentionInputs& inputs, const Settings& s, size_t alignment) {
  auto& [qkv, bias_table, pad_qkv, key_mask] = inputs;
  qkv = as_kernel_input(qkv, alignment);
  for (std::optional<Tensor>* tensor : {&bias_table, &pad_qkv, &key_mask}) {
    if (*tensor) *tensor = as_kernel_input(**tensor, alignment);
  }
  GridAttentionParams p{};
  p.geometry = {make_axis(s, 0), make_axis(s, 1), make_axis(s, 2), s.num_prefix};
  for (size_t axis = 0; axis < 3; ++axis) {
    p.bias.window[axis] = s.bias_window[axis];
    p.bias.extent[axis] = s.bias_by_window ? s.bias_window[axis] : s.block[axis];
  }
  p.data_type = data_type(qkv);
  STD_TORCH_CHECK(s.num_prefix >= 0 && s.prefix_queries >= 0 && s.prefix_queries <= 2, "bad prefix settings");
  STD_TORCH_CHECK(qkv.dim() == 3, "qkv must have 3 dimensions, got ", qkv.dim());
  const int64_t packed = qkv.size(2);
  STD_TORCH_CHECK(s.num_heads > 0 && packed > 0 && packed % (3 * s.num_heads) == 0, "num_heads must divide C");
  p.batch = qkv.size(0);
  p.num_heads = s.num_heads;
  p.head_dim = packed / 3 / s.num_heads;
  p.scale = s.scale;
  p.prefix_keys = s.prefix_keys;
  p.prefix_queries = static_cast<PrefixQueries>(s.prefix_queries);

  check_tensor(qkv, "qkv", qkv, qkv.scalar_type(), {p.batch, p.num_tokens(), packed});
  if (bias_table) {
    check_tensor(*bias_table, "bias_table", qkv, acc_type(p.data_type), {p.bias.table_size(), p.num_heads});
  }
  if (pad_qkv) check_tensor(*pad_qkv, "pad_qkv", qkv, qkv.scalar_type(), {packed});
  if (key_mask) check_tensor(*key_mask, "key_mask", qkv, ScalarType::Bool, {p.batch, p.geometry.num_tokens()});
  p.qkv = qkv.const_data_ptr();
  p.bias_table = address(bias_table);
  p.pad_qkv = address(pad_qkv);
  p.key_mask = static_cast<const bool*>(address(key_mask));
  return p;
}

}  // namespace vtfast
