// Parameters of pooling attention, shared by every backend. See vtfast/ops/pooling_attention.py for the semantics.
#pragma once

#include <cstdint>

#include "data_type.h"
#include "geometry.h"
#include "token_rows.h"

namespace vtfast {

// B batch, P prefix tokens, Nq and Nk tokens of the two grids, C = num_heads * head_dim channels. "acc" is float, or
// double for float64 data.
struct PoolingAttentionParams {
  RelativeAxis axes[3];  // t, h, w
  int64_t batch;
  int64_t num_prefix;
  int64_t num_heads;
  int64_t head_dim;
  double scale;
  DataType data_type;
  bool residual;         // whether the queries of the grid are added to the result
  bool residual_prefix;  // whether those of the prefix are

  TokenRows q;             // [B, P + Nq, C]
  TokenRows k;             // [B, P + Nk, C]
  TokenRows v;             // [B, P + Nk, C]
  const void* rel_pos[3];  // acc [axes[i].num_rows(), head_dim], or null for none along the axis
  void* out;               // [B, P + Nq, C]; forward only
  void* lse;               // acc [B, num_heads, P + Nq], natural logarithm

  int64_t channels() const { return num_heads * head_dim; }
  int64_t grid_queries() const { return axes[0].q_size * axes[1].q_size * axes[2].q_size; }
  int64_t grid_keys() const { return axes[0].k_size * axes[1].k_size * axes[2].k_size; }
  int64_t num_queries() const { return num_prefix + grid_queries(); }
  int64_t num_keys() const { return num_prefix + grid_keys(); }
};

struct PoolingAttentionGradients {
  const void* grad_out;  // [B, P + Nq, C]
  void* d_q;             // [B, P + Nq, C]
  void* d_k;             // [B, P + Nk, C]
  void* d_v;             // [B, P + Nk, C]
  void* d_rel_pos[3];    // as rel_pos
};

}  // namespace vtfast
