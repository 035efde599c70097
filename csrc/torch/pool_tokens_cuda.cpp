#include "cuda/pool_tokens.h"
#include "torch/cuda_device.h"
#include "torch/pool_tokens_binding.h"

namespace vtfast {
namespace {

class CudaEngine {
 public:
  static constexpr const char* kDevice = "a CUDA device";
  static constexpr size_t kAlignment = 16;

  static bool owns(const Tensor& tensor) { return cuda::on_device(tensor); }

  CudaEngine(const Tensor& x, const PoolTokensParams& p)
      : guard_(x.get_device_index()), stream_(cuda::current_stream(x)) {
    const char* reason = cuda::unsupported(p);
    STD_TORCH_CHECK(reason == nullptr, "pool_tokens on CUDA: ", reason);
  }

  int64_t backward_workspace_size(const PoolTokensParams& p) const { return cuda::pool_tokens_workspace_size(p); }

  void forward(const PoolTokensParams& p) const { cuda::pool_tokens_forward(p, stream_); }

  void backward(const PoolTokensParams& p, const PoolTokensGradients& gradients, void* workspace) const {
    cuda::pool_tokens_backward(p, gradients, workspace, stream_);
  }

 private:
  cuda::DeviceGuard guard_;
  void* stream_;
};

STABLE_TORCH_LIBRARY_IMPL(vtfast, VTFAST_CUDA_DISPATCH_KEY, library) { register_pool_tokens<CudaEngine>(library); }

}  // namespace
}  // namespace vtfast
