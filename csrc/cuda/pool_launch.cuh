// Picks and launches the kernels of a pool.
#pragma once

#include "cuda/launch.cuh"
#include "pool_maximum.cuh"
#include "pool_plan.h"
#include "with_type.cuh"

namespace vtfast::cuda {

// Calls run(Pool{}) with what computes weighted sums by this window.
template <class T, Flow kFlow, class Run>
void with_window(const PoolTokensParams& p, const Run& run) {
  switch (tile_stride(p)) {
    case 1:
      return run(Tile<T, kFlow, 1>{});
    case 2:
      return run(Tile<T, kFlow, 2>{});
    default:
      return run(AnyWindow<T, kFlow>{});
  }
}

template <class Pool>
PoolKernelParams plan_pool(const PoolTokensParams& p) {
  return plan_pool(p, Pool::kFlow, Pool::kLines, Pool::kColumns);
}

// `lane_sums` numbers of a thread are summed over its lanes at a time.
inline void launch_pool(void (*kernel)(PoolKernelParams), const PoolKernelParams& k, int lane_sums, void* stream) {
  const int floats = lane_sums == 0 ? 0 : kMostLaneSums * kPoolThreads + lane_sums * kLaneFloats;
  const size_t shared = k.scratch + floats * sizeof(float);
  launch(kernel, num_blocks(k), num_threads(k), shared, stream, k);
}

}  // namespace vtfast::cuda
