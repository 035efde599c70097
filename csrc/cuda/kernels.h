// Launches of the kernels, one translation unit a data type, direction and kind of plan.
#pragma once

#include "kernel_params.h"

namespace vtfast::cuda {

// `T` is BFloat16, Float16 or float of element.cuh; `kWhole` is params.plan.whole().
template <class T, bool kWhole>
void launch_forward(const KernelParams& params, void* stream);

template <class T, Phase kPhase>
void launch_backward(const KernelParams& params, void* stream);

}  // namespace vtfast::cuda
