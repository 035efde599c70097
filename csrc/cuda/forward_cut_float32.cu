#include "launch_forward.cuh"

template void vtfast::cuda::launch_forward<float, false>(const KernelParams& params, void* stream);
