#include "launch_backward.cuh"

template void vtfast::cuda::launch_backward<vtfast::cuda::BFloat16, vtfast::cuda::Phase::kBoth>(
    const KernelParams& params, void* stream);
