#include "pooling_keys.cuh"

template void vtfast::cuda::launch_pooling_keys<vtfast::cuda::BFloat16>(const PoolingKernelParams& params,
                                                                        void* stream);
