#include "cpu/pool_tokens.h"
#include "torch/pool_tokens_binding.h"

namespace vtfast {
namespace {

struct CpuEngine {
  static constexpr const char* kDevice = "the CPU";
  static constexpr size_t kAlignment = 1;

  static bool owns(const Tensor& tensor) { return tensor.is_cpu(); }

  CpuEngine(const Tensor&, const PoolTokensParams&) {}

  int64_t backward_workspace_size(const PoolTokensParams& p) const { return cpu::pool_tokens_workspace_size(p); }

  void forward(const PoolTokensParams& p) const { cpu::pool_tokens_forward(p); }

  void backward(const PoolTokensParams& p, const PoolTokensGradients& gradients, void* workspace) const {
    cpu::pool_tokens_backward(p, gradients, workspace);
  }
};

STABLE_TORCH_LIBRARY_IMPL(vtfast, CPU, library) { register_pool_tokens<CpuEngine>(library); }

}  // namespace
}  // namespace vtfast
