// Pools and normalises tokens, or, the other way round, spreads the gradients of windows over their tokens.
#pragma once

#include "pool_norm.cuh"
#include "pool_targets.cuh"

namespace vtfast::cuda {

template <class Pool, class Target>
__global__ void __launch_bounds__(kPoolThreads, 2) pool_kernel(const __grid_constant__ PoolKernelParams p) {
  const PoolTable table(p);
  table.fill(p);
  __syncthreads();
  for (int step = blockIdx.x; step < p.steps; step += gridDim.x) {
    const PoolRow row(p, step, Pool::kLines, Pool::kColumns);
    float targets[Pool::kTargets][kChannels] = {};
    if (row.exists) pool_row<Pool>(p, row, targets);
    if (p.norm_weight != nullptr) {
      float scales[Pool::kTargets];
      standardise(p, row, targets, scales);
      float scale[kChannels], shift[kChannels];
      table.get(kScaleRow, row.lane, scale);
      table.get(kShiftRow, row.lane, shift);
#pragma unroll
      for (int i = 0; i < Pool::kTargets; ++i) {
#pragma unroll
        for (int c = 0; c < kChannels; ++c) targets[i][c] = targets[i][c] * scale[c] + shift[c];
      }
    }
    const MutableTokenBytes& tokens = row.is_prefix ? p.target_prefix : p.target;
    for_each_target<Pool>(p, row, [&](int i, int64_t token) {
      store(shifted(channels_of<Target>(tokens, row), token * tokens.token_stride), targets[i]);
    });
  }
}

}  // namespace vtfast::cuda
