#include "pooling_forward.cuh"

template void vtfast::cuda::launch_pooling_forward<float>(const PoolingKernelParams& params, void* stream);
