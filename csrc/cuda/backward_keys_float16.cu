#include "launch_backward.cuh"

template void vtfast::cuda::launch_backward<vtfast::cuda::Float16, vtfast::cuda::Phase::kKeys>(
    const KernelParams& params, void* stream);
