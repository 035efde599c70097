#include "cpu/grid_attention.h"
#include "torch/grid_attention_binding.h"

namespace vtfast {
namespace {

struct CpuEngine {
  static constexpr const char* kDevice = "the CPU";
  static constexpr size_t kAlignment = 1;

  static bool owns(const Tensor& tensor) { return tensor.is_cpu(); }

  CpuEngine(const Tensor&, const GridAttentionParams&) {}

  int64_t forward_workspace_size(const GridAttentionParams& p) const { return cpu::forward_workspace_size(p); }

  int64_t backward_workspace_size(const GridAttentionParams& p, const GridAttentionGradients& gradients) const {
    return cpu::backward_workspace_size(p, gradients);
  }

  void forward(const GridAttentionParams& p, void* workspace) const { cpu::grid_attention_forward(p, workspace); }

  void backward(const GridAttentionParams& p, const GridAttentionGradients& gradients, void* workspace) const {
    cpu::grid_attention_backward(p, gradients, workspace);
  }
};

STABLE_TORCH_LIBRARY_IMPL(vtfast, CPU, library) { register_grid_attention<CpuEngine>(library); }

}  // namespace
}  // namespace vtfast
