#include "depthwise_slide_gradient_launch.cuh"

template void vtfast::cuda::launch_slide_gradient<float>(SlidingKernel kernel,
                                                         const DepthwiseSlideGradientParams& params, int64_t slabs,
                                                         void* stream);
