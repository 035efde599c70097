#include "column_sums.h"
#include "pool_backward.h"
#include "pool_launch.cuh"
#include "pool_weight_gradient.cuh"

namespace vtfast::cuda {
namespace {

Divisor num_tiles(const PoolAxis& axis, int64_t taps) {
  return Divisor(static_cast<int>((axis.kernel + taps - 1) / taps));
}

template <class T, int kStride>
int64_t run(const PoolBackward& b) {
  const MutableTokenBytes gradients = b.window_gradients();
  WeightGradientParams k{};
  k.windows = plan_pool(b.p, Flow::kToWindows, 1, WeightSums<T, kStride>::kWindows);
  const WeightSlabs slabs = weight_slabs(k.windows);
  k.windows.source = b.tokens();
  k.tap_frames = num_tiles(b.p.t, 1);
  k.tap_lines = num_tiles(b.p.h, kTapTile);
  k.tap_columns = num_tiles(b.p.w, kTapTile);
  k.slab_steps = static_cast<int>(slabs.steps);
  k.gradients = {gradients.data, gradients.batch_stride, gradients.token_stride};
  k.partials = b.workspace + b.layout.weight_partials;
  const int64_t blocks = slabs.count * k.tap_frames * k.tap_lines * k.tap_columns;
  launch(pool_weight_gradient_kernel<T, kStride>, blocks, num_threads(k.windows), RowSums::kBytes, b.stream, k);
  return slabs.count;
}

}  // namespace

int64_t differentiate_weights(const PoolBackward& b) {
  int64_t partials = 0;
  with_type(b.p.data_type, [&](auto element) {
    using T = decltype(element);
    partials = b.p.w.stride == 1 ? run<T, 1>(b) : b.p.w.stride == 2 ? run<T, 2>(b) : run<T, 0>(b);
  });
  return partials;
}

void add_partials(const PoolBackward& b, int64_t of_norm, int64_t of_weights) {
  const auto columns = [&](int64_t offset, int64_t rows, int64_t stride, int64_t columns, void* sums) {
    return ColumnSums{b.workspace + offset, static_cast<float*>(sums), rows, stride, sums == nullptr ? 0 : columns};
  };
  const int64_t head_dim = b.p.head_dim, weights = head_dim * b.p.num_taps();
  const int64_t scale = b.layout.norm_partials, shift = scale + head_dim;
  const ColumnSumsParams k{{columns(scale, of_norm, 2 * head_dim, head_dim, b.gradients.d_norm_weight),
                            columns(shift, of_norm, 2 * head_dim, head_dim, b.gradients.d_norm_bias),
                            columns(b.layout.weight_partials, of_weights, weights, weights, b.gradients.d_weight)}};
  sum_columns(k, b.stream);
}

}  // namespace vtfast::cuda
