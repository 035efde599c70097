#include "pooling_keys.cuh"

template void vtfast::cuda::launch_pooling_keys<float>(const PoolingKernelParams& params, void* stream);
