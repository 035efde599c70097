// How token pooling is cut up, by sizes alone: sums over blocks follow this cut.
#pragma once

#include "pool_params.h"

namespace vtfast::cuda {

// `frames` x 1 x `columns` targets make a tile. Source, target and what a backward has besides are left out.
PoolKernelParams plan_pool(const PoolTokensParams& params, Flow flow, int frames, int columns);

int num_threads(const PoolKernelParams& params);
int num_blocks(const PoolKernelParams& params);

// Bytes of scratch space for sums of `count` numbers a thread over its lanes.
int64_t lane_sums_bytes(const PoolKernelParams& params, int count);

// 1 or 2 where strips are computed with that stride (see pool_windows.cuh), 0 where they are not.
int strip_stride(const PoolTokensParams& params);

// The slabs of windows over which gradients of the weights are summed.
struct WeightSlabs {
  int64_t steps;  // of a slab
  int64_t count;
};

WeightSlabs weight_slabs(const PoolTokensParams& params);

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
