// Launches of pooling attention's kernels, one translation unit a data type and kernel.
#pragma once

#include "pooling_params.h"

namespace vtfast::cuda {

// `T` is BFloat16, Float16 or float of element.cuh.
template <class T>
void launch_pooling_forward(const PoolingKernelParams& params, void* stream);

template <class T>
void launch_pooling_queries(const PoolingKernelParams& params, void* stream);

template <class T>
void launch_pooling_keys(const PoolingKernelParams& params, void* stream);

}  // namespace vtfast::cuda
