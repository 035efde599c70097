// The tensors of depthwise convolution as every device takes them.
#pragma once

#include "depthwise_conv3d.h"
#include "torch/tensor_arguments.h"

namespace vtfast {

// As the schema lists them.
struct ConvolutionSettings {
  std::vector<int64_t> stride, padding;
  bool residual;
};

// Checks the inputs and describes the convolution. `x` is a grid input already; `weight` and `bias` become a kernel's
// input here.
DepthwiseConv3dParams describe(const Tensor& x, Tensor& weight, std::optional<Tensor>& bias,
                               const ConvolutionSettings& settings, size_t alignment);

}  // namespace vtfast
