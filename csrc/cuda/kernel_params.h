// What the kernels are launched with: the problem in 32-bit sizes, the plan, and what blocks hand to one another.
#pragma once

#include <cmath>

#include "../grid_attention.h"
#include "divisor.h"
#include "launch_plan.h"
#include "logarithms.h"
#include "shared_layout.h"

namespace vtfast::cuda {

// Tokens that a group has besides its slots: the prefix, if any group attends to it or it to any group.
inline int64_t prefix_of_group(const GridAttentionParams& p) {
  return p.prefix_keys || p.prefix_attends() ? p.geometry.num_prefix : 0;
}

// What a launch of the backward computes: the gradient of the queries, that of keys, values and table, or, where groups
// are whole, both.
enum class Phase : int { kQueries, kKeys, kBoth };

// G groups of a clip, S slots of a group, P prefix tokens, N grid tokens, R rows of the bias table, d head_dim.
struct KernelParams {
  DeviceGeometry geometry;
  Divisor num_groups;                               // of a clip
  Divisor clip_tokens;                              // P + N
  Divisor entries;                                  // of a group: its share of the prefix, then its slots
  Divisor unit_rows, row_sets, chunks;              // those of the plan
  int group_prefix;                                 // prefix tokens among the entries
  Divisor extent_h, extent_w;                       // box in which a slot has its place
  int bias_stride_t, bias_stride_h, bias_stride_w;  // bytes of a head's table between neighbouring places
  int bias_center;                                  // byte of a slot with itself
  int table_size;                                   // R
  int batch, num_heads, head_dim;
  float scale;
  float score_scale;  // for logarithms of base 2
  bool pad_keys;      // whether queries see padding, also true without any
  bool prefix_keys;
  PrefixQueries prefix_queries;
  float prefix_share;  // of a group in the result of a prefix query: one, or its part of a mean
  LaunchPlan plan;
  SharedLayout layout;

  const void* qkv;         // [B, P + N, 3 * C]
  const void* pad_qkv;     // [3 * C], or null for zeros
  const bool* key_mask;    // [B, N], or null
  const float* table;      // [heads, R], times log2(e), or null
  void* out;               // [B, P + N, C], or [B, N, C] if the prefix does not attend
  float* lse;              // [B, heads, N], natural logarithm; infinity for a query without a key
  float* prefix_lse;       // [B, passes, heads, P]
  float* prefix_partials;  // [B * G, heads, P, d + 1]: result and lse of a prefix query in a group

  const void* grad_out;         // as out
  const void* grad_prefix;      // [B, P, C]: what grad_out gives a prefix query in each group
  void* d_qkv;                  // [B, P + N, 3 * C]
  float* delta;                 // [B, heads, N]: sum of p dp over the keys of a query
  float* prefix_delta;          // [B, passes, heads, P]
  float* prefix_grad_partials;  // [B * G, heads, P, 3 * d]
  float* table_partials;        // [workers, heads, R], or null if the table has no gradient
  float* table_scratch;         // [workers * heads, warps, R], null if shared memory holds it
  float* pad_partials;          // [workers, heads, 2 * d], or null if the padding has no gradient

  VTFAST_HOST_DEVICE int channels() const { return num_heads * head_dim; }
  VTFAST_HOST_DEVICE bool prefix_attends() const {
    return geometry.num_prefix > 0 && prefix_queries != PrefixQueries::kNone;
  }
  VTFAST_HOST_DEVICE int num_passes() const {
    if (!prefix_attends()) return 0;
    return prefix_queries == PrefixQueries::kGlobal ? 1 : int(num_groups);
  }
  VTFAST_HOST_DEVICE bool global_prefix() const { return prefix_attends() && prefix_queries == PrefixQueries::kGlobal; }
};

}  // namespace vtfast::cuda
