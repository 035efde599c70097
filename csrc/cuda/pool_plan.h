// How token pooling is cut up, by sizes alone: sums over blocks follow this cut.
#pragma once

#include "pool_params.h"

namespace vtfast::cuda {

// The tokens from number `first` on, of `element_size` bytes a channel.
inline TokenBytes tokens_from(const TokenRows& rows, int64_t first, int64_t element_size) {
  const int64_t stride = rows.token_stride * element_size;
  return {static_cast<const char*>(rows.data) + first * stride, rows.batch_stride * element_size, stride};
}

inline MutableTokenBytes tokens_from(const MutableTokenRows& rows, int64_t first, int64_t element_size) {
  const int64_t stride = rows.token_stride * element_size;
  return {static_cast<char*>(rows.data) + first * stride, rows.batch_stride * element_size, stride};
}

// `lines` x `columns` targets make a tile. Source, target and what a backward has besides are left out.
PoolKernelParams plan_pool(const PoolTokensParams& params, Flow flow, int lines, int columns);

int num_threads(const PoolKernelParams& params);
int num_blocks(const PoolKernelParams& params);

// The stride of windows that are computed in tiles of several (see pool_windows.cuh), or 0 for others.
int tile_stride(const PoolTokensParams& params);

// The slabs of windows over which gradients of the weights are summed.
struct WeightSlabs {
  int64_t steps;  // of a slab
  int64_t count;
};

WeightSlabs weight_slabs(const PoolKernelParams& windows);

// The parts of the workspace of a backward, in floats.
struct PoolWorkspace {
  int64_t gradients;        // offsets: [B, N', C] of what was pooled
  int64_t winners;          // [B, N', C] of 16 bits each, of maxima
  int64_t norm_partials;    // [blocks, 2, head_dim]
  int64_t weight_partials;  // [slabs, head_dim, taps]
  int64_t size;

  explicit PoolWorkspace(const PoolTokensParams& params);
};

}  // namespace vtfast::cuda
