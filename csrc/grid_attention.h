// Parameters of grid attention, shared by every backend. See vtfast/ops/grid_attention.py for the semantics.
#pragma once

#include <cstdint>

#include "data_type.h"
#include "geometry.h"

namespace vtfast {

enum class PrefixQueries : int { kNone, kGlobal, kMean };

// B batch, P prefix tokens, N = T*H*W grid tokens, C = num_heads * head_dim, R rows of the bias table.
// "acc" is float, or double for float64 data.
struct GridAttentionParams {
  Geometry geometry;
  BiasGeometry bias;
  int64_t batch;
  int64_t num_heads;
  int64_t head_dim;
  double scale;
  DataType data_type;
  bool pad_keys;
  bool prefix_keys;
  PrefixQueries prefix_queries;

  const void* qkv;         // [B, P + N, 3 * C]
  const void* bias_table;  // acc [R, num_heads], or null
  const void* pad_qkv;     // [3 * C], or null for zeros
  const bool* key_mask;    // [B, N], or null
  void* out;               // [B, P + N, C], or [B, N, C] if the prefix does not attend; forward only
  void* lse;               // acc [B, num_heads, N], natural logarithm
  void* prefix_lse;        // acc [B, num_passes, num_heads, P]

  int64_t num_tokens() const { return geometry.num_prefix + geometry.num_tokens(); }
  int64_t channels() const { return num_heads * head_dim; }
  bool prefix_attends() const { return geometry.num_prefix > 0 && prefix_queries != PrefixQueries::kNone; }
  int64_t out_prefix() const { return prefix_attends() ? geometry.num_prefix : 0; }

  // How often the prefix attends: once to everything, or once a group.
  int64_t num_passes() const {
    if (!prefix_attends()) return 0;
    return prefix_queries == PrefixQueries::kGlobal ? 1 : geometry.num_groups();
  }
};

struct GridAttentionGradients {
  const void* grad_out;  // as out
  void* d_qkv;           // [B, P + N, 3 * C]
  void* d_bias_table;    // acc [R, num_heads], or null
  void* d_pad_qkv;       // [3 * C], or null
};

}  // namespace vtfast
