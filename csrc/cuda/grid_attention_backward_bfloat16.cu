#include "launch_backward.cuh"

template void vtfast::cuda::launch_backward<vtfast::cuda::BFloat16>(const KernelParams& params, void* stream);
