#include "cuda/depthwise_conv3d.h"
#include "torch/cuda_device.h"
#include "torch/depthwise_conv3d_binding.h"

namespace vtfast {
namespace {

class CudaEngine {
 public:
  static constexpr const char* kDevice = "a CUDA device";
  static constexpr size_t kAlignment = 16;

  static bool owns(const Tensor& tensor) { return cuda::on_device(tensor); }

  CudaEngine(const Tensor& x, const DepthwiseConv3dParams& p)
      : guard_(x.get_device_index()), stream_(cuda::current_stream(x)) {
    const char* reason = cuda::unsupported(p);
    STD_TORCH_CHECK(reason == nullptr, "depthwise_conv3d on CUDA: ", reason);
  }

  int64_t backward_workspace_size(const DepthwiseConv3dParams& p, const DepthwiseConv3dGradients& gradients) const {
    return cuda::depthwise_conv3d_workspace_size(p, gradients);
  }

  void forward(const DepthwiseConv3dParams& p) const { cuda::depthwise_conv3d_forward(p, stream_); }

  void backward(const DepthwiseConv3dParams& p, const DepthwiseConv3dGradients& gradients, void* workspace) const {
    cuda::depthwise_conv3d_backward(p, gradients, workspace, stream_);
  }

 private:
  cuda::DeviceGuard guard_;
  void* stream_;
};

STABLE_TORCH_LIBRARY_IMPL(vtfast, VTFAST_CUDA_DISPATCH_KEY, library) { register_depthwise_conv3d<CudaEngine>(library); }

}  // namespace
}  // namespace vtfast
