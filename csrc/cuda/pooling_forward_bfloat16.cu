#include "pooling_forward.cuh"

template void vtfast::cuda::launch_pooling_forward<vtfast::cuda::BFloat16>(const PoolingKernelParams& params,
                                                                           void* stream);
