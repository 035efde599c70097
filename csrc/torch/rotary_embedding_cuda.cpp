#include "cuda/rotary_embedding.h"
#include "torch/cuda_device.h"
#include "torch/rotary_embedding_binding.h"

namespace vtfast {
namespace {

class CudaEngine {
 public:
  static constexpr const char* kDevice = "a CUDA device";
  static constexpr size_t kAlignment = 16;

  static bool owns(const Tensor& tensor) { return cuda::on_device(tensor); }

  CudaEngine(const Tensor& qkv, const RotaryEmbeddingParams& p)
      : guard_(qkv.get_device_index()), stream_(cuda::current_stream(qkv)) {
    const char* reason = cuda::unsupported(p);
    STD_TORCH_CHECK(reason == nullptr, "rotary_embedding on CUDA: ", reason);
  }

  void run(const RotaryEmbeddingParams& p) const { cuda::rotary_embedding(p, stream_); }

 private:
  cuda::DeviceGuard guard_;
  void* stream_;
};

STABLE_TORCH_LIBRARY_IMPL(vtfast, VTFAST_CUDA_DISPATCH_KEY, library) { register_rotary_embedding<CudaEngine>(library); }

}  // namespace
}  // namespace vtfast
