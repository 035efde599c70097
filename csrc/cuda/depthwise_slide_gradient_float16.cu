#include "depthwise_slide_gradient_launch.cuh"

template void vtfast::cuda::launch_slide_gradient<vtfast::cuda::Float16>(SlidingKernel kernel,
                                                                         const DepthwiseSlideGradientParams& params,
                                                                         int64_t slabs, void* stream);
