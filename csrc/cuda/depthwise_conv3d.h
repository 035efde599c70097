// The GPU's depthwise convolution, as the host sees it: raw pointers only, no CUDA header. Launches are on `stream` (a
// cudaStream_t) of the current device and return without waiting. All tensors and all their tokens must be 16-byte
// aligned; unsupported() must be null.
#pragma once

#include "../depthwise_conv3d.h"

namespace vtfast::cuda {

// Why the kernels cannot compute this, or null.
const char* unsupported(const DepthwiseConv3dParams& params);

void depthwise_conv3d_forward(const DepthwiseConv3dParams& params, void* stream);

// In floats.
int64_t depthwise_conv3d_workspace_size(const DepthwiseConv3dParams& params, const DepthwiseConv3dGradients& gradients);

void depthwise_conv3d_backward(const DepthwiseConv3dParams& params, const DepthwiseConv3dGradients& gradients,
                               void* workspace, void* stream);

}  // namespace vtfast::cuda
