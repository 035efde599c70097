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
    const TokenBytes& tokens = p.source_prefix;
    load(shifted(channels_of<T>(tokens, row), row.t * tokens.token_stride), targets[0]);
  } else {
    Pool::pool(p, row, targets);
  }
}

// Calls visit(i, token) for each target of a row that there is; tokens of the prefix and of the grid count from zero.
template <class Pool, class Visit>
__device__ inline void for_each_target(const PoolKernelParams& p, const PoolRow& row, const Visit& visit) {
  if (!row.exists) return;
  const int height = num_targets<Pool::kFlow>(p.h), width = num_targets<Pool::kFlow>(p.w);
  const int first = row.is_prefix ? row.t : (row.t * height + row.h) * width + row.w;
  const int lines = row.is_prefix ? 1 : height - row.h, columns = row.is_prefix ? 1 : width - row.w;
#pragma unroll
  for (int i = 0; i < Pool::kTargets; ++i) {
    const int line = i / Pool::kColumns, column = i % Pool::kColumns;
    if (line < lines && column < columns) visit(i, int64_t{first + line * width + column});
  }
}

}  // namespace vtfast::cuda
