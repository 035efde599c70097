#include "pooling_queries.cuh"

template void vtfast::cuda::launch_pooling_queries<vtfast::cuda::BFloat16>(const PoolingKernelParams& params,
                                                                           void* stream);
