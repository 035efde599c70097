#include "torch/pooling_attention_arguments.h"

#include <torch/headeronly/util/Exception.h>

namespace vtfast {

PoolingAttentionParams describe(PoolingAttentionInputs& inputs, const PoolingAttentionSettings& settings,
                                size_t alignment) {
  auto& [q, k, v, rel_pos] = inputs;
  q = as_token_input(q, "q", alignment);
  k = as_token_input(k, "k", alignment);
  v = as_token_input(v, "v", alignment);
  STD_TORCH_CHECK(settings.q_grid.size() == 3 && settings.k_grid.size() == 3, "grids must have three elements");
  STD_TORCH_CHECK(settings.num_prefix >= 0, "num_prefix must be at least 0");
  const int64_t channels = q.size(2);
  STD_TORCH_CHECK(settings.num_heads > 0 && channels > 0 && channels % settings.num_heads == 0,
                  "num_heads must divide C");

  PoolingAttentionParams p{};
  for (int i = 0; i < 3; ++i) {
    STD_TORCH_CHECK(settings.q_grid[i] > 0 && settings.k_grid[i] > 0, "grids must be at least 1 along each axis");
    p.axes[i] = RelativeAxis::make(settings.q_grid[i], settings.k_grid[i]);
  }
  p.batch = q.size(0);
  p.num_prefix = settings.num_prefix;
  p.num_heads = settings.num_heads;
  p.head_dim = channels / settings.num_heads;
  p.scale = settings.scale;
  p.data_type = data_type(q, "q");
  p.residual = settings.residual;
  p.residual_prefix = settings.residual_prefix;
  check_tensor(q, "q", q, q.scalar_type(), {p.batch, p.num_queries(), channels});
  check_tensor(k, "k", q, q.scalar_type(), {p.batch, p.num_keys(), channels});
  check_tensor(v, "v", q, q.scalar_type(), {p.batch, p.num_keys(), channels});
  p.q = token_rows(q);
  p.k = token_rows(k);
  p.v = token_rows(v);
  for (int i = 0; i < 3; ++i) {
    if (!rel_pos[i]) continue;
    rel_pos[i] = as_kernel_input(*rel_pos[i], alignment);
    check_tensor(*rel_pos[i], "rel_pos", q, acc_type(p.data_type), {p.axes[i].num_rows(), p.head_dim});
    p.rel_pos[i] = address(rel_pos[i]);
  }
  return p;
}

}  // namespace vtfast
