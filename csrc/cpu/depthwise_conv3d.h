// The CPU's depthwise convolution: raw pointers only. Compiled once per instruction set.
#pragma once

#include "../depthwise_conv3d.h"

namespace vtfast::cpu {

void depthwise_conv3d_forward(const DepthwiseConv3dParams& params);

// Elements of accumulation type.
int64_t depthwise_conv3d_workspace_size(const DepthwiseConv3dParams& params, const DepthwiseConv3dGradients& gradients);

void depthwise_conv3d_backward(const DepthwiseConv3dParams& params, const DepthwiseConv3dGradients& gradients,
                               void* workspace);

}  // namespace vtfast::cpu
