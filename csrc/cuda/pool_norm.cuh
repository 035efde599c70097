// LayerNorm over the channels of a head, which `lanes` neighbouring threads hold, eight each; they need not be in one
// warp. All threads of the block have to come.
#pragma once

#include "pool_row.cuh"
#include "pool_table.cuh"

namespace vtfast::cuda {

// `numbers` become finish(sum), the sums taken over the lanes of a row, in order. Calls may follow one another with no
// barrier between them: sums stand apart from what they are sums of, and each is written only behind a barrier.
template <int kCount, class Finish>
__device__ inline void sum_over_lanes(const PoolKernelParams& p, const PoolRow& row, float (&numbers)[kCount],
                                      const Finish& finish) {
  static_assert(kCount <= kMostLaneSums);
  const int pitch = p.lanes | 1;  // the first numbers of rows are in different banks
  const Shared<float> sums(p.scratch), parts = sums + kMostLaneSums * kPoolThreads;
  if (row.index < p.block_rows) {
    const Shared<float> part = parts + (row.index * pitch + row.lane);
#pragma unroll
    for (int i = 0; i < kCount; ++i) part[i * kLaneFloats] = numbers[i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kCount * p.block_rows; i += blockDim.x) {
    const Shared<float> part = parts + (i % kCount * kLaneFloats + i / kCount * pitch);
    float sum = 0;
    for (int lane = 0; lane < p.lanes; ++lane) sum += part[lane];
    sums[i] = finish(sum);
  }
  __syncthreads();
  if (row.index < p.block_rows) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) numbers[i] = sums[row.index * kCount + i];
  }
}

// Targets -> (target - mean) / spread, with 1 / spread of each.
template <int kTargets>
__device__ inline void standardise(const PoolKernelParams& p, const PoolRow& row, float (&targets)[kTargets][kChannels],
                                   float (&scales)[kTargets]) {
  float means[kTargets];
#pragma unroll
  for (int i = 0; i < kTargets; ++i) {
    means[i] = 0;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) means[i] += targets[i][c];
  }
  sum_over_lanes(p, row, means, [&](float sum) { return sum * p.head_share; });
#pragma unroll
  for (int i = 0; i < kTargets; ++i) {
    scales[i] = 0;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      targets[i][c] -= means[i];
      scales[i] += targets[i][c] * targets[i][c];
    }
  }
  sum_over_lanes(p, row, scales, [&](float sum) { return 1.0f / sqrtf(sum * p.head_share + p.eps); });
#pragma unroll
  for (int i = 0; i < kTargets; ++i) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) targets[i][c] *= scales[i];
  }
}

}  // namespace vtfast::cuda
