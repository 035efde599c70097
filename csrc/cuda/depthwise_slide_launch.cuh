// Picks the kernel that slides along t.
#pragma once

#include "cuda/launch.cuh"
#include "depthwise_plan.h"
#include "depthwise_slide.cuh"
#include "depthwise_taps.cuh"

namespace vtfast::cuda {

template <class T>
void launch_slide(SlidingKernel kernel, const DepthwiseSlideParams& params, void* stream) {
  with_taps(kernel, [&](auto taps) {
    using Taps = decltype(taps);
    launch(depthwise_slide_kernel<T, Taps>, int64_t{params.tiles.count} * params.tiles.chunks,
           num_threads(params.tiles), DepthwiseSlide<T, Taps>::kSharedBytes, stream, params);
  });
}

}  // namespace vtfast::cuda
