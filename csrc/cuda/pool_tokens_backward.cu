#include "pool_backward.h"
#include "pool_gradient.cuh"
#include "pool_launch.cuh"
#include "pool_tokens.h"

namespace vtfast::cuda {
namespace {

template <class Pool>
int64_t run(const PoolBackward& b) {
  const PoolTokensParams& p = b.p;
  const int64_t size = b.element_size();
  const TokenRows grad_out{b.gradients.grad_out, (p.num_prefix + p.num_outputs()) * p.channels(), p.channels()};
  PoolKernelParams k = plan_pool<Pool>(p);
  k.source_prefix = tokens_from(p.x, 0, size);
  k.source = b.tokens();
  k.target_prefix = tokens_from(b.gradients.d_x, 0, size);
  k.target = b.window_gradients();
  k.grad_out_prefix = tokens_from(grad_out, 0, size);
  k.grad_out = tokens_from(grad_out, p.num_prefix, size);
  k.winners = b.winners();
  if (p.norm_weight == nullptr) {
    launch_pool(pool_gradient_kernel<Pool>, k, 0, b.stream);
    return 0;
  }
  k.norm_partials = b.workspace + b.layout.norm_partials;
  k.scratch += NormGradient::kBytes;
  launch_pool(pool_gradient_kernel<Pool>, k, 2 * Pool::kTargets, b.stream);
  return num_blocks(k);
}

}  // namespace

int64_t differentiate_windows(const PoolBackward& b) {
  int64_t partials = 0;
  with_type(b.p.data_type, [&](auto element) {
    using T = decltype(element);
    if (b.p.mode == PoolMode::kMaximum) {
      partials = run<Maximum<T>>(b);
    } else {
      with_window<T, Flow::kToWindows>(b.p, [&](auto pool) { partials = run<decltype(pool)>(b); });
    }
  });
  return partials;
}

int64_t pool_tokens_workspace_size(const PoolTokensParams& p) { return PoolWorkspace(p).size; }

void pool_tokens_backward(const PoolTokensParams& p, const PoolTokensGradients& gradients, void* workspace,
                          void* stream) {
  const PoolBackward backward{p, gradients, PoolWorkspace(p), static_cast<float*>(workspace), stream};
  const int64_t of_norm = differentiate_windows(backward);
  if (p.mode != PoolMode::kNone) differentiate_tokens(backward);
  const int64_t of_weights = p.weight == nullptr ? 0 : differentiate_weights(backward);
  add_partials(backward, of_norm, of_weights);
}

}  // namespace vtfast::cuda
