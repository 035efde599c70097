// What the kernels of token pooling share: the sums of a row, and the places of its targets.
#pragma once

#include "pool_row.cuh"
#include "pool_windows.cuh"

namespace vtfast::cuda {

// The pooled tokens of a row; a prefix token as it is.
template <class Pool>
__device__ inline void pool_row(const PoolKernelParams& p, const PoolRow& row,
                                float (&targets)[Pool::kTargets][kChannels]) {
  using T = typename Pool::Source;
  if (row.is_prefix) {
    Channels<T>(channels_of<T>(p.source_prefix, row) + int64_t{row.t} * p.source_prefix.token_stride).get(targets[0]);
  } else {
    Pool::pool(p, row, targets);
  }
}

// Calls visit(i, token) for each target of a row that there is; tokens of the prefix and of the grid count from zero.
template <class Pool, class Visit>
__device__ inline void for_each_target(const PoolKernelParams& p, const PoolRow& row, const Visit& visit) {
  if (!row.exists) return;
  const int width = num_targets<Pool::kFlow>(p.w);
#pragma unroll
  for (int i = 0; i < Pool::kTargets; ++i) {
    const int t = row.t + i / Pool::kColumns, w = row.w + i % Pool::kColumns;
    if (row.is_prefix) {
      if (i == 0) visit(i, int64_t{row.t});
    } else if (t < num_targets<Pool::kFlow>(p.t) && w < width) {
      visit(i, int64_t{t * num_targets<Pool::kFlow>(p.h) + row.h} * width + w);
    }
  }
}

}  // namespace vtfast::cuda
