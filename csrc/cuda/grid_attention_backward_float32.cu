#include "launch_backward.cuh"

template void vtfast::cuda::launch_backward<float>(const KernelParams& params, void* stream);
