#include "cpu/depthwise_conv3d.h"
#include "torch/depthwise_conv3d_binding.h"

namespace vtfast {
namespace {

struct CpuEngine {
  static constexpr const char* kDevice = "the CPU";
  static constexpr size_t kAlignment = 1;

  static bool owns(const Tensor& tensor) { return tensor.is_cpu(); }

  CpuEngine(const Tensor&, const DepthwiseConv3dParams&) {}

  int64_t backward_workspace_size(const DepthwiseConv3dParams& p, const DepthwiseConv3dGradients& gradients) const {
    return cpu::depthwise_conv3d_workspace_size(p, gradients);
  }

  void forward(const DepthwiseConv3dParams& p) const { cpu::depthwise_conv3d_forward(p); }

  void backward(const DepthwiseConv3dParams& p, const DepthwiseConv3dGradients& gradients, void* workspace) const {
    cpu::depthwise_conv3d_backward(p, gradients, workspace);
  }
};

STABLE_TORCH_LIBRARY_IMPL(vtfast, CPU, library) { register_depthwise_conv3d<CpuEngine>(library); }

}  // namespace
}  // namespace vtfast
