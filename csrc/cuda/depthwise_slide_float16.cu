#include "depthwise_slide_launch.cuh"

template void vtfast::cuda::launch_slide<vtfast::cuda::Float16>(SlidingKernel kernel,
                                                                const DepthwiseSlideParams& params, void* stream);
