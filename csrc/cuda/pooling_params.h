// What the kernels of pooling attention are launched with: the problem in 32-bit sizes, the plan, and what kernels hand
// to one another.
//
// The score of a query and a key is scale q k^T + r u^T. Here r are the query's relative scores: for every axis with a
// table and every position that a key may have along it, the product of q with the row of the table. The key's place u
// is zero but at its own positions. So relative positions lengthen both sides of a product, and their gradient is
// another product.
#pragma once

#include "../pooling_attention.h"
#include "divisor.h"
#include "logarithms.h"
#include "pooling_layout.h"

namespace vtfast::cuda {

// What a place holds at a key's positions. Relative scores are stored as so much smaller, out of float16's limits.
inline constexpr float kPlaced = 16;

struct PositionAxis {
  DeviceRelativeAxis sizes;
  Divisor q_stride;  // queries from one to the next along the axis
  Divisor k_stride;
  int first_row;    // of the table, among the rows of all
  int first_score;  // of the keys' positions, among the relative scores

  const float* table;  // [sizes.num_rows(), d], or null
  float* d_table;

  Divisor sharing;  // queries of a head that have one position
  int first_block;  // of those that sum the gradient of the table
  int slices;       // of the queries of all heads with one position, each for other blocks
  float* partials;  // [positions of queries, slices, positions of keys, d]

  VTFAST_HOST_DEVICE bool exists() const { return table != nullptr; }
};

// P prefix tokens, Nq and Nk tokens of the grids, E relative scores (plan.width), R rows of all tables, d head_dim.
struct PoolingKernelParams {
  PositionAxis axes[3];  // t, h, w
  Divisor num_heads;
  int pairs;  // of clip and head
  int num_prefix;
  int num_queries;  // P + Nq
  int num_keys;     // P + Nk
  int head_dim;
  int table_rows;    // R
  int table_blocks;  // that sum the tables' gradients
  float scale;
  float score_scale;  // for logarithms of base 2
  bool residual;
  bool residual_prefix;
  PoolingPlan plan;
  PoolingLayout layout;

  TokenRows q;           // [B, P + Nq, C]
  TokenRows k;           // [B, P + Nk, C]
  TokenRows v;           // [B, P + Nk, C]
  MutableTokenRows out;  // [B, P + Nq, C]
  float* lse;            // [B, heads, P + Nq], natural logarithm
  void* tables;          // [R, d], in the type of the tokens
  void* places;          // [P + Nk, E]

  TokenRows grad_out;    // [B, P + Nq, C]
  MutableTokenRows d_q;  // [B, P + Nq, C]
  MutableTokenRows d_k;  // [B, P + Nk, C]
  MutableTokenRows d_v;  // [B, P + Nk, C]
  float* delta;          // [B, heads, P + Nq]: sum of p dp over the keys of a query
  void* relative;        // [B, heads, P + Nq, E]: scores times log2(e) / kPlaced
  void* d_relative;      // [B, heads, P + Nq, E]: gradient of the scores
  float* key_partials;   // [splits, 2, B, heads, P + Nk, d], or null if there is one split

  // Which axis has row `row` of all tables.
  VTFAST_HOST_DEVICE int axis_of_row(int row) const {
    return axes[2].exists() && row >= axes[2].first_row ? 2 : axes[1].exists() && row >= axes[1].first_row ? 1 : 0;
  }

  // Whether a query is added to the result.
  VTFAST_HOST_DEVICE bool has_residual(int query) const { return query < num_prefix ? residual_prefix : residual; }
};

}  // namespace vtfast::cuda
