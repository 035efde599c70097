#include "pool_backward.h"
#include "pool_kernel.cuh"
#include "pool_launch.cuh"

namespace vtfast::cuda {
namespace {

template <class Pool, class T>
void run(const PoolBackward& b) {
  const MutableTokenBytes source = b.window_gradients();
  PoolKernelParams k = plan_pool<Pool>(b.p);
  k.source = {source.data, source.batch_stride, source.token_stride};
  k.target = tokens_from(b.gradients.d_x, b.p.num_prefix, sizeof(T));
  k.winners = b.winners();
  launch_pool(pool_kernel<Pool, T>, k, 0, b.stream);
}

}  // namespace

void differentiate_tokens(const PoolBackward& b) {
  with_type(b.p.data_type, [&](auto element) {
    using T = decltype(element);
    if (b.p.mode == PoolMode::kMaximum) return run<Won, T>(b);
    with_window<float, Flow::kToTokens>(b.p, [&](auto pool) { run<decltype(pool), T>(b); });
  });
}

}  // namespace vtfast::cuda
