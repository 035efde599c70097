#include "pool_kernel.cuh"
#include "pool_launch.cuh"
#include "pool_tokens.h"

namespace vtfast::cuda {
namespace {

template <class Pool>
void run(const PoolTokensParams& p, void* stream) {
  using T = typename Pool::Source;
  PoolKernelParams k = plan_pool<Pool>(p);
  const MutableTokenRows out{p.out, (p.num_prefix + p.num_outputs()) * p.channels(), p.channels()};
  k.source_prefix = tokens_from(p.x, 0, sizeof(T));
  k.source = tokens_from(p.x, p.num_prefix, sizeof(T));
  k.target_prefix = tokens_from(out, 0, sizeof(T));
  k.target = tokens_from(out, p.num_prefix, sizeof(T));
  launch_pool(pool_kernel<Pool, T>, k, p.norm_weight == nullptr ? 0 : Pool::kTargets, stream);
}

}  // namespace

void pool_tokens_forward(const PoolTokensParams& p, void* stream) {
  with_type(p.data_type, [&](auto element) {
    using T = decltype(element);
    if (p.mode == PoolMode::kMaximum) return run<Maximum<T>>(p, stream);
    with_window<T, Flow::kToWindows>(p, [&](auto pool) { run<decltype(pool)>(p, stream); });
  });
}

}  // namespace vtfast::cuda
