#include "pooling_forward.cuh"

template void vtfast::cuda::launch_pooling_forward<vtfast::cuda::Float16>(const PoolingKernelParams& params,
                                                                          void* stream);
