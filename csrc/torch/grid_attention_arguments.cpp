#include "torch/grid_attention_arguments.h"

#include <torch/headeronly/util/Exception.h>

namespace vtfast {

GridAttentionParams describe(GridAttentionInputs& inputs, const GridAttentionSettings& settings, size_t alignment) {
  auto& [qkv, bias_table, pad_qkv, key_mask] = inputs;
  qkv = as_kernel_input(qkv, alignment);
  for (std::optional<Tensor>* tensor : {&bias_table, &pad_qkv, &key_mask}) {
    if (*tensor) *tensor = as_kernel_input(**tensor, alignment);
  }
  STD_TORCH_CHECK(qkv.dim() == 3, "qkv must have 3 dimensions, got ", qkv.dim());
  GridAttentionParams p = make_params(settings, data_type(qkv, "qkv"), qkv.size(0), qkv.size(2));

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
