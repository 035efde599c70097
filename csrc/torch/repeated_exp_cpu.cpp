#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/Exception.h>

#include "cpu/repeated_exp.h"
#include "torch/tensor_arguments.h"

namespace vtfast {
namespace {

Tensor repeated_exp(Tensor x, int64_t rounds) {
  STD_TORCH_CHECK(x.is_cpu(), "x must be on the CPU");
  STD_TORCH_CHECK(x.scalar_type() == ScalarType::Float, "x must be float32");
  STD_TORCH_CHECK(rounds >= 0, "rounds must be at least 0, got ", rounds);
  x = as_kernel_input(x, 1);
  Tensor out = empty(x, {x.sizes().begin(), x.sizes().end()});
  cpu::repeated_exp(x.const_data_ptr<float>(), x.numel(), rounds, out.mutable_data_ptr<float>());
  return out;
}

STABLE_TORCH_LIBRARY_IMPL(vtfast, CPU, library) { library.impl("repeated_exp", TORCH_BOX(&repeated_exp)); }

}  // namespace
}  // namespace vtfast
