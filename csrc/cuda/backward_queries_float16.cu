#include "launch_backward.cuh"

template void vtfast::cuda::launch_backward<vtfast::cuda::Float16, vtfast::cuda::Phase::kQueries>(
    const KernelParams& params, void* stream);
