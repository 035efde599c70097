#include "depthwise_slide_launch.cuh"

template void vtfast::cuda::launch_slide<vtfast::cuda::BFloat16>(SlidingKernel kernel,
                                                                 const DepthwiseSlideParams& params, void* stream);
