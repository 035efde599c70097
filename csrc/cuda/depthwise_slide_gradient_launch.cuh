// Picks the kernel that slides along t for the gradient of weights.
#pragma once

#include "cuda/launch.cuh"
#include "depthwise_plan.h"
#include "depthwise_slide_gradient.cuh"
#include "depthwise_taps.cuh"

namespace vtfast::cuda {

template <class T>
void launch_slide_gradient(SlidingKernel kernel, const DepthwiseSlideGradientParams& params, int64_t slabs,
                           void* stream) {
  with_taps(kernel, [&](auto taps) {
    using Taps = decltype(taps);
    launch(depthwise_slide_gradient_kernel<T, Taps>, slabs * params.tiles.chunks, num_threads(params.tiles),
           DepthwiseSlideGradient<T, Taps>::kSharedBytes, stream, params);
  });
}

}  // namespace vtfast::cuda
