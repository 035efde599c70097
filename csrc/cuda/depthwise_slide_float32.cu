#include "depthwise_slide_launch.cuh"

template void vtfast::cuda::launch_slide<float>(SlidingKernel kernel, const DepthwiseSlideParams& params, void* stream);
