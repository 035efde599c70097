#include "torch/depthwise_conv3d_arguments.h"

#include <torch/headeronly/util/Exception.h>

namespace vtfast {
namespace {

PoolAxis axis(const Tensor& x, const Tensor& weight, const ConvolutionSettings& settings, int i) {
  const int64_t size = x.size(1 + i), kernel = weight.size(2 + i), stride = settings.stride[i];
  const int64_t padding = settings.padding[i];
  STD_TORCH_CHECK(size > 0 && kernel > 0 && stride > 0, "grid, kernel and stride must be at least 1");
  STD_TORCH_CHECK(padding >= 0 && size + 2 * padding >= kernel, "padding must make the grid as large as the kernel");
  return PoolAxis::make(size, kernel, stride, padding);
}

}  // namespace

DepthwiseConv3dParams describe(const Tensor& x, Tensor& weight, std::optional<Tensor>& bias,
                               const ConvolutionSettings& settings, size_t alignment) {
  STD_TORCH_CHECK(settings.stride.size() == 3 && settings.padding.size() == 3,
                  "stride and padding must have three elements");
  STD_TORCH_CHECK(weight.dim() == 5, "weight must have 5 dimensions, got ", weight.dim());
  DepthwiseConv3dParams p{};
  p.t = axis(x, weight, settings, 0);
  p.h = axis(x, weight, settings, 1);
  p.w = axis(x, weight, settings, 2);
  p.batch = x.size(0);
  p.channels = x.size(4);
  p.residual = settings.residual;
  p.data_type = data_type(x, "x");
  const bool keeps_size = p.t.pooled == p.t.size && p.h.pooled == p.h.size && p.w.pooled == p.w.size;
  STD_TORCH_CHECK(p.channels > 0, "x must have channels");
  STD_TORCH_CHECK(keeps_size || !p.residual, "residual needs a convolution that keeps the grid");

  const ScalarType acc = acc_type(p.data_type);
  weight = as_kernel_input(weight, alignment);
  check_tensor(weight, "weight", x, acc, {p.channels, 1, p.t.kernel, p.h.kernel, p.w.kernel});
  if (bias) {
    bias = as_kernel_input(*bias, alignment);
    check_tensor(*bias, "bias", x, acc, {p.channels});
  }
  p.x = token_grid(x);
  p.weight = weight.const_data_ptr();
  p.bias = address(bias);
  return p;
}

}  // namespace vtfast
