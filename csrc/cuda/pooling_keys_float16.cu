#include "pooling_keys.cuh"

template void vtfast::cuda::launch_pooling_keys<vtfast::cuda::Float16>(const PoolingKernelParams& params, void* stream);
