#include "launch_forward.cuh"

template void vtfast::cuda::launch_forward<vtfast::cuda::BFloat16, true>(const KernelParams& params, void* stream);
