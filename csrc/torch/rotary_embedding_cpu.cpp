#include "cpu/rotary_embedding.h"
#include "torch/rotary_embedding_binding.h"

namespace vtfast {
namespace {

struct CpuEngine {
  static constexpr const char* kDevice = "the CPU";
  static constexpr size_t kAlignment = 1;

  static bool owns(const Tensor& tensor) { return tensor.is_cpu(); }

  CpuEngine(const Tensor&, const RotaryEmbeddingParams&) {}

  void run(const RotaryEmbeddingParams& p) const { cpu::rotary_embedding(p); }
};

STABLE_TORCH_LIBRARY_IMPL(vtfast, CPU, library) { register_rotary_embedding<CpuEngine>(library); }

}  // namespace
}  // namespace vtfast
