// Launches one of pooling attention's kernels for a head_dim.
#pragma once

#include <type_traits>

#include "cuda/launch.cuh"
#include "pooling_kernels.h"

namespace vtfast::cuda {

// `kernel_of(dim)` is the kernel for a padded head_dim, an integral_constant.
template <class KernelOf>
void launch_pooling(const PoolingKernelParams& params, void* stream, const KernelOf& kernel_of) {
  const PoolingPlan& plan = params.plan;
  const auto run = [&](void (*kernel)(PoolingKernelParams)) {
    launch(kernel, int64_t{params.pairs} * plan.row_sets * plan.splits, 32 * plan.warps, plan.shared_bytes, stream,
           params);
  };
  switch (plan.padded_dim) {
    case 32:
      return run(kernel_of(std::integral_constant<int, 32>()));
    case 64:
      return run(kernel_of(std::integral_constant<int, 64>()));
    case 96:
      return run(kernel_of(std::integral_constant<int, 96>()));
    default:
      return run(kernel_of(std::integral_constant<int, 128>()));
  }
}

}  // namespace vtfast::cuda
