// Launches of the kernels of depthwise convolution, one translation unit a data type where there are many.
#pragma once

#include "depthwise_params.h"

namespace vtfast::cuda {

// Whether outputs are summed out of the inputs, or the inputs' gradients out of those of the outputs.
enum class DepthwiseFlow : int { kToOutputs, kToInputs };

// 5 x 5 x 5, (3, 1, 1), (1, 3, 3) and 3 x 3 x 3 at stride 1 slide along t; kNone is any other.
enum class SlidingKernel : int { kNone, kLarge, kTime, kPlane, kBlock };

SlidingKernel sliding_kernel(const DepthwiseConv3dParams& params);

// Channels of a thread.
int sum_channels(DataType type);
int gradient_channels(DataType type, SlidingKernel kernel);

// `T` is BFloat16, Float16 or float of element.cuh.
template <class T>
void launch_slide(SlidingKernel kernel, const DepthwiseSlideParams& params, void* stream);

template <class T>
void launch_slide_gradient(SlidingKernel kernel, const DepthwiseSlideGradientParams& params, int64_t slabs,
                           void* stream);

void launch_any(DataType type, DepthwiseFlow flow, const DepthwiseAnyParams& params, void* stream);

void launch_any_gradient(DataType type, const DepthwiseAnyGradientParams& params, int64_t slabs, void* stream);

}  // namespace vtfast::cuda
