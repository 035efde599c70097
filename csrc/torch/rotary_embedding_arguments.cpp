#include "torch/rotary_embedding_arguments.h"

#include <torch/headeronly/util/Exception.h>

namespace vtfast {

RotaryEmbeddingParams describe(const Tensor& qkv, const Tensor& cos, const Tensor& sin,
                               const std::vector<int64_t>& grid, int64_t num_heads, int64_t num_prefix,
                               bool transpose) {
  STD_TORCH_CHECK(qkv.dim() == 3, "qkv must have 3 dimensions, got ", qkv.dim());
  STD_TORCH_CHECK(cos.dim() == 4, "cos must have 4 dimensions, got ", cos.dim());
  STD_TORCH_CHECK(grid.size() == 3 && num_prefix >= 0, "grid must have three elements, num_prefix be at least 0");
  const int64_t packed = qkv.size(2);
  STD_TORCH_CHECK(num_heads > 0 && packed > 0 && packed % (3 * num_heads) == 0, "num_heads must divide C");

  RotaryEmbeddingParams p{};
  p.data_type = data_type(qkv, "qkv");
  p.batch = qkv.size(0);
  p.num_prefix = num_prefix;
  p.num_heads = num_heads;
  p.head_dim = packed / 3 / num_heads;
  p.rotated = cos.size(3);
  p.transpose = transpose;
  STD_TORCH_CHECK(p.rotated > 0 && p.rotated % 2 == 0 && p.rotated <= p.head_dim,
                  "cos must have an even number of channels, at most head_dim");
  int64_t stride = p.rotated;
  for (int64_t axis = 2; axis >= 0; --axis) {
    const int64_t size = cos.size(axis);
    p.grid[axis] = grid[axis];
    STD_TORCH_CHECK(grid[axis] > 0 && (size == 1 || size == grid[axis]), "cos must have size 1 or that of the grid");
    p.table_stride[axis] = size == 1 ? 0 : stride;
    stride *= size;
  }
  check_tensor(qkv, "qkv", qkv, qkv.scalar_type(), {p.batch, p.num_tokens(), packed});
  for (const Tensor* table : {&cos, &sin}) {
    check_tensor(*table, table == &cos ? "cos" : "sin", qkv, acc_type(p.data_type),
                 {cos.size(0), cos.size(1), cos.size(2), p.rotated});
  }
  p.qkv = qkv.const_data_ptr();
  p.cos = cos.const_data_ptr();
  p.sin = sin.const_data_ptr();
  return p;
}

}  // namespace vtfast
