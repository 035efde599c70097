#include "launch_backward.cuh"

template void vtfast::cuda::launch_backward<float, vtfast::cuda::Phase::kQueries>(const KernelParams& params,
                                                                                  void* stream);
