// Tensors of grid attention: checks that keep memory safe, allocation, registration. vtfast/ops checks what users get
// wrong.
#include "cpu/grid_attention.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <array>
#include <optional>
#include <tuple>
#include <vector>

namespace vtfast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;

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

ScalarType acc_type(DataType type) { return type == DataType::kFloat64 ? ScalarType::Double : ScalarType::Float; }

void check_tensor(const Tensor& tensor, const char* name, ScalarType type, std::initializer_list<int64_t> shape) {
  STD_TORCH_CHECK(tensor.is_cpu(), name, " must be on the CPU");
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

void make_contiguous(std::optional<Tensor>& tensor) {
  if (tensor) tensor = torch::stable::contiguous(*tensor);
}

const void* address(const std::optional<Tensor>& tensor) { return tensor ? tensor->const_data_ptr() : nullptr; }

// The settings of a call, as the schema lists them.
struct Settings {
  Sizes grid;
  int64_t num_heads;
  Sizes block, dilation, shift, bias_window;
  bool bias_by_window;
  int64_t num_prefix;
  bool prefix_keys;
  int64_t prefix_queries;
  double scale;
};

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

// Checks the inputs, makes them contiguous and describes them; outputs are left out.
GridAttentionParams describe(Tensor& qkv, std::optional<Tensor>& bias_table, std::optional<Tensor>& pad_qkv,
                             std::optional<Tensor>& key_mask, const Settings& s) {
  qkv = torch::stable::contiguous(qkv);
  for (std::optional<Tensor>* tensor : {&bias_table, &pad_qkv, &key_mask}) make_contiguous(*tensor);
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

  check_tensor(qkv, "qkv", qkv.scalar_type(), {p.batch, p.num_tokens(), packed});
  if (bias_table) {
    check_tensor(*bias_table, "bias_table", acc_type(p.data_type), {p.bias.table_size(), p.num_heads});
  }
  if (pad_qkv) check_tensor(*pad_qkv, "pad_qkv", qkv.scalar_type(), {packed});
  if (key_mask) check_tensor(*key_mask, "key_mask", ScalarType::Bool, {p.batch, p.geometry.num_tokens()});
  p.qkv = qkv.const_data_ptr();
  p.bias_table = address(bias_table);
  p.pad_qkv = address(pad_qkv);
  p.key_mask = static_cast<const bool*>(address(key_mask));
  return p;
}

Tensor empty(const Tensor& like, const Sizes& shape, std::optional<ScalarType> type = std::nullopt) {
  return torch::stable::new_empty(like, shape, type);
}

std::tuple<Tensor, Tensor, Tensor> forward(Tensor qkv, std::optional<Tensor> bias_table, std::optional<Tensor> pad_qkv,
                                           std::optional<Tensor> key_mask, Sizes grid, int64_t num_heads, Sizes block,
                                           Sizes dilation, Sizes shift, Sizes bias_window, bool bias_by_window,
                                           int64_t num_prefix, bool prefix_keys, int64_t prefix_queries, double scale) {
  GridAttentionParams p = describe(qkv, bias_table, pad_qkv, key_mask,
                                   {grid, num_heads, block, dilation, shift, bias_window, bias_by_window, num_prefix,
                                    prefix_keys, prefix_queries, scale});
  const ScalarType acc = acc_type(p.data_type);
  Tensor out = empty(qkv, {p.batch, p.out_prefix() + p.geometry.num_tokens(), p.channels()});
  Tensor lse = empty(qkv, {p.batch, p.num_heads, p.geometry.num_tokens()}, acc);
  Tensor prefix_lse = empty(qkv, {p.batch, p.num_passes(), p.num_heads, p.geometry.num_prefix}, acc);
  Tensor workspace = empty(qkv, {cpu::forward_workspace_size(p)}, acc);
  p.out = out.mutable_data_ptr();
  p.lse = lse.mutable_data_ptr();
  p.prefix_lse = prefix_lse.mutable_data_ptr();
  cpu::grid_attention_forward(p, workspace.mutable_data_ptr());
  return {out, lse, prefix_lse};
}

std::tuple<Tensor, Tensor, Tensor> backward(Tensor grad_out, Tensor qkv, std::optional<Tensor> bias_table,
                                            std::optional<Tensor> pad_qkv, std::optional<Tensor> key_mask, Tensor lse,
                                            Tensor prefix_lse, Sizes grid, int64_t num_heads, Sizes block,
                                            Sizes dilation, Sizes shift, Sizes bias_window, bool bias_by_window,
                                            int64_t num_prefix, bool prefix_keys, int64_t prefix_queries,
                                            double scale) {
  for (Tensor* tensor : {&grad_out, &lse, &prefix_lse}) *tensor = torch::stable::contiguous(*tensor);
  GridAttentionParams p = describe(qkv, bias_table, pad_qkv, key_mask,
                                   {grid, num_heads, block, dilation, shift, bias_window, bias_by_window, num_prefix,
                                    prefix_keys, prefix_queries, scale});
  const ScalarType type = qkv.scalar_type(), acc = acc_type(p.data_type);
  const int64_t out_tokens = p.out_prefix() + p.geometry.num_tokens();
  check_tensor(grad_out, "grad_out", type, {p.batch, out_tokens, p.channels()});
  check_tensor(lse, "lse", acc, {p.batch, p.num_heads, p.geometry.num_tokens()});
  check_tensor(prefix_lse, "prefix_lse", acc, {p.batch, p.num_passes(), p.num_heads, p.geometry.num_prefix});
  p.lse = const_cast<void*>(lse.const_data_ptr());
  p.prefix_lse = const_cast<void*>(prefix_lse.const_data_ptr());

  Tensor d_qkv = empty(qkv, {p.batch, p.num_tokens(), 3 * p.channels()});
  Tensor d_table = bias_table ? empty(*bias_table, {p.bias.table_size(), p.num_heads}) : empty(qkv, {0});
  Tensor d_pad = pad_qkv ? empty(*pad_qkv, {3 * p.channels()}) : empty(qkv, {0});
  const GridAttentionGradients gradients{grad_out.const_data_ptr(), d_qkv.mutable_data_ptr(),
                                         bias_table ? d_table.mutable_data_ptr() : nullptr,
                                         pad_qkv ? d_pad.mutable_data_ptr() : nullptr};
  Tensor workspace = empty(qkv, {cpu::backward_workspace_size(p, gradients)}, acc);
  cpu::grid_attention_backward(p, gradients, workspace.mutable_data_ptr());
  return {d_qkv, d_table, d_pad};
}

STABLE_TORCH_LIBRARY_IMPL(vtfast, CPU, library) {
  library.impl("grid_attention", TORCH_BOX(&forward));
  library.impl("grid_attention_backward", TORCH_BOX(&backward));
}

}  // namespace
}  // namespace vtfast
