#include "launch_forward.cuh"

template void vtfast::cuda::launch_forward<vtfast::cuda::Float16, true>(const KernelParams& params, void* stream);
