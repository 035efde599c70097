#include "cuda/pooling_attention.h"
#include "torch/cuda_device.h"
#include "torch/pooling_attention_binding.h"

namespace vtfast {
namespace {

class CudaEngine {
 public:
  static constexpr const char* kDevice = "a CUDA device";
  static constexpr size_t kAlignment = 16;

  static bool owns(const Tensor& tensor) { return cuda::on_device(tensor); }

  CudaEngine(const Tensor& q, const PoolingAttentionParams& p)
      : device_(cuda::device_of(q)), guard_(q.get_device_index()), stream_(cuda::current_stream(q)) {
    const char* reason = cuda::unsupported(p);
    STD_TORCH_CHECK(reason == nullptr, "pooling_attention on CUDA: ", reason);
  }

  int64_t forward_workspace_size(const PoolingAttentionParams& p) const {
    return cuda::forward_workspace_size(p, device_);
  }

  int64_t backward_workspace_size(const PoolingAttentionParams& p) const {
    return cuda::backward_workspace_size(p, device_);
  }

  void forward(const PoolingAttentionParams& p, void* workspace) const {
    cuda::pooling_attention_forward(p, device_, workspace, stream_);
  }

  void backward(const PoolingAttentionParams& p, const PoolingAttentionGradients& gradients, void* workspace) const {
    cuda::pooling_attention_backward(p, gradients, device_, workspace, stream_);
  }

 private:
  const cuda::Device& device_;
  cuda::DeviceGuard guard_;
  void* stream_;
};

STABLE_TORCH_LIBRARY_IMPL(vtfast, VTFAST_CUDA_DISPATCH_KEY, library) {
  register_pooling_attention<CudaEngine>(library);
}

}  // namespace
}  // namespace vtfast
