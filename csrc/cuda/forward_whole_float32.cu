#include "launch_forward.cuh"

template void vtfast::cuda::launch_forward<float, true>(const KernelParams& params, void* stream);
