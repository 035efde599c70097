// From a sliding kernel to its taps.
#pragma once

#include "depthwise_kernels.h"
#include "depthwise_weights.cuh"

namespace vtfast::cuda {

// Calls run(Taps{}).
template <class Run>
void with_taps(SlidingKernel kernel, const Run& run) {
  switch (kernel) {
    case SlidingKernel::kLarge:
      return run(Taps<5, 5, 5>{});
    case SlidingKernel::kTime:
      return run(Taps<3, 1, 1>{});
    case SlidingKernel::kPlane:
      return run(Taps<1, 3, 3>{});
    default:
      return run(Taps<3, 3, 3>{});
  }
}

}  // namespace vtfast::cuda
