#include "cpu/pooling_attention.h"
#include "torch/pooling_attention_binding.h"

namespace vtfast {
namespace {

struct CpuEngine {
  static constexpr const char* kDevice = "the CPU";
  static constexpr size_t kAlignment = 1;

  static bool owns(const Tensor& tensor) { return tensor.is_cpu(); }

  CpuEngine(const Tensor&, const PoolingAttentionParams&) {}

  int64_t forward_workspace_size(const PoolingAttentionParams&) const { return 0; }

  int64_t backward_workspace_size(const PoolingAttentionParams& p) const {
    return cpu::pooling_attention_workspace_size(p);
  }

  void forward(const PoolingAttentionParams& p, void*) const { cpu::pooling_attention_forward(p); }

  void backward(const PoolingAttentionParams& p, const PoolingAttentionGradients& gradients, void* workspace) const {
    cpu::pooling_attention_backward(p, gradients, workspace);
  }
};

STABLE_TORCH_LIBRARY_IMPL(vtfast, CPU, library) { register_pooling_attention<CpuEngine>(library); }

}  // namespace
}  // namespace vtfast
