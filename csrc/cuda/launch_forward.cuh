// Picks the forward kernel for a head_dim.
#pragma once

#include "cuda/launch.cuh"
#include "forward.cuh"
#include "kernels.h"

namespace vtfast::cuda {

template <class T, bool kWhole>
void launch_forward(const KernelParams& params, void* stream) {
  const auto run = [&](void (*kernel)(KernelParams)) {
    const LaunchPlan& plan = params.plan;
    launch(kernel, plan.workers * params.num_heads, 32 * plan.warps, plan.shared_bytes, stream, params);
  };
  switch (params.plan.padded_dim) {
    case 32:
      return run(forward_kernel<T, 32, kWhole>);
    case 64:
      return run(forward_kernel<T, 64, kWhole>);
    case 96:
      return run(forward_kernel<T, 96, kWhole>);
    default:
      return run(forward_kernel<T, 128, kWhole>);
  }
}

}  // namespace vtfast::cuda
