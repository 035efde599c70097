#include "pooling_queries.cuh"

template void vtfast::cuda::launch_pooling_queries<float>(const PoolingKernelParams& params, void* stream);
