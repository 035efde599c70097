// Launches of the kernels, one translation unit a data type and direction.
#pragma once

#include "kernel_params.h"

namespace vtfast::cuda {

// `T` is BFloat16, Float16 or float of element.cuh.
template <class T>
void launch_forward(const KernelParams& params, void* stream);

// The phases that params.phases names, in one kernel.
template <class T>
void launch_backward(const KernelParams& params, void* stream);

}  // namespace vtfast::cuda
