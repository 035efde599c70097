// Picks the backward kernel for a head_dim.
#pragma once

#include "backward.cuh"
#include "cuda/launch.cuh"
#include "kernels.h"

namespace vtfast::cuda {

template <class T, Phase kPhase>
void launch_backward(const KernelParams& params, void* stream) {
  const auto run = [&](void (*kernel)(KernelParams)) {
    const LaunchPlan& plan = params.plan;
    launch(kernel, plan.workers * params.num_heads, 32 * plan.warps, plan.shared_bytes, stream, params);
  };
  switch (params.plan.padded_dim) {
    case 32:
      return run(backward_kernel<T, 32, kPhase>);
    case 64:
      return run(backward_kernel<T, 64, kPhase>);
    case 96:
      return run(backward_kernel<T, 96, kPhase>);
    default:
      return run(backward_kernel<T, 128, kPhase>);
  }
}

}  // namespace vtfast::cuda
