#include "launch_backward.cuh"

template void vtfast::cuda::launch_backward<float, vtfast::cuda::Phase::kBoth>(const KernelParams& params,
                                                                               void* stream);
