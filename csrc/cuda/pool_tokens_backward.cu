// Backward pass of token pooling: the gradient of what was pooled, from there that of the tokens, as a sum over the
// windows that hold them, and that of the weights, and last the sums over all blocks.
#include "pool_gradient.cuh"
#include "pool_kernel.cuh"
#include "pool_launch.cuh"
#include "pool_tokens.h"
#include "pool_weight_gradient.cuh"

namespace vtfast::cuda {
namespace {

__global__ void __launch_bounds__(kSumThreads) column_sums_kernel(const __grid_constant__ ColumnSumsParams p) {
  int64_t block = blockIdx.x;
  int i = 0;
  while (block >= p.sums[i].columns / ColumnSums::kColumns) block -= p.sums[i++].columns / ColumnSums::kColumns;
  const ColumnSums& job = p.sums[i];
  const float* partials = job.partials + block * ColumnSums::kColumns;
  float* sums = job.sums + block * ColumnSums::kColumns;
  sum_rows(
      job.rows, ColumnSums::kColumns, Shared<float>(0).address(),
      [&](int64_t row, int column) { return partials[row * job.stride + column]; },
      [&](int column, float sum) { sums[column] = sum; });
}

class Backward {
 public:
  Backward(const PoolTokensParams& p, const PoolTokensGradients& gradients, void* workspace, void* stream)
      : p_(p), gradients_(gradients), layout_(p), memory_(static_cast<float*>(workspace)), stream_(stream) {}

  template <class T>
  void run() const {
    if (p_.mode == PoolMode::kMaximum) {
      differentiate<Maximum<T>>();
      spread<Won, T>();
    } else {
      with_window<T, Flow::kToWindows>(p_, [&](auto pool) { differentiate<decltype(pool)>(); });
      if (p_.mode == PoolMode::kNone) return;
      with_window<float, Flow::kToTokens>(p_, [&](auto pool) { spread<decltype(pool), T>(); });
    }
    if (gradients_.d_weight != nullptr) differentiate_weight<T>();
  }

 private:
  int64_t element_size() const { return p_.data_type == DataType::kFloat32 ? 4 : 2; }

  TokenRows tokens() const { return grid_of(p_.x, p_.num_prefix, element_size()); }

  MutableTokenRows window_gradients() const {
    return {memory_ + layout_.gradients, p_.num_outputs() * p_.channels(), p_.channels()};
  }

  uint16_t* winners() const {
    return p_.mode == PoolMode::kMaximum ? reinterpret_cast<uint16_t*>(memory_ + layout_.winners) : nullptr;
  }

  // Leaves the gradients of windows and sums those of the norm; those of the prefix are done.
  template <class Pool>
  void differentiate() const {
    const int64_t channels = p_.channels(), size = element_size();
    PoolKernelParams k = plan_pool<Pool>(p_);
    k.source_prefix = p_.x;
    k.source = tokens();
    k.target_prefix = gradients_.d_x;
    k.target = window_gradients();
    k.grad_out_prefix = {gradients_.grad_out, (p_.num_prefix + p_.num_outputs()) * channels, channels};
    k.grad_out = grid_of(k.grad_out_prefix, p_.num_prefix, size);
    k.winners = winners();
    k.norm_partials = memory_ + layout_.norm_partials;
    k.lane_sums += 2 * RowSums::kFloats * sizeof(float);
    launch_pool(pool_gradient_kernel<Pool>, k, 2 * Pool::kTargets, stream_);
    if (p_.norm_weight == nullptr) return;
    const auto sums = [&](int64_t offset, void* to) {
      const int64_t columns = to == nullptr ? 0 : p_.head_dim;
      return ColumnSums{k.norm_partials + offset, static_cast<float*>(to), num_blocks(k), 2 * p_.head_dim, columns};
    };
    sum_columns({{sums(0, gradients_.d_norm_weight), sums(p_.head_dim, gradients_.d_norm_bias)}});
  }

  template <class Pool, class T>
  void spread() const {
    PoolKernelParams k = plan_pool<Pool>(p_);
    k.source = as_source(window_gradients());
    k.target = grid_of(gradients_.d_x, p_.num_prefix, element_size());
    k.winners = winners();
    launch_pool(pool_kernel<Pool, T>, k, 0, stream_);
  }

  template <class T>
  void differentiate_weight() const {
    const auto tiles = [](const PoolAxis& axis, int64_t tile) {
      return Divisor(static_cast<int>((axis.kernel + tile - 1) / tile));
    };
    const WeightSlabs slabs = weight_slabs(p_);
    WeightGradientParams k{};
    k.windows = plan_pool(p_, Flow::kToWindows, 1, 1);
    k.windows.source = tokens();
    k.tap_frames = tiles(p_.t, 1);
    k.tap_lines = tiles(p_.h, kTapTile);
    k.tap_columns = tiles(p_.w, kTapTile);
    k.slab_steps = static_cast<int>(slabs.steps);
    k.gradients = as_source(window_gradients());
    k.partials = memory_ + layout_.weight_partials;
    launch(pool_weight_gradient_kernel<T>, slabs.count * k.tap_frames * k.tap_lines * k.tap_columns,
           num_threads(k.windows), RowSums::kFloats * sizeof(float), stream_, k);
    const int64_t weights = p_.head_dim * p_.num_taps();
    sum_columns({{{k.partials, static_cast<float*>(gradients_.d_weight), slabs.count, weights, weights}}});
  }

  void sum_columns(const ColumnSumsParams& sums) const {
    launch(column_sums_kernel, sums.num_blocks(), kSumThreads, kSumThreads * sizeof(float), stream_, sums);
  }

  static TokenRows as_source(const MutableTokenRows& rows) { return {rows.data, rows.batch_stride, rows.token_stride}; }

  const PoolTokensParams& p_;
  const PoolTokensGradients& gradients_;
  const PoolWorkspace layout_;
  float* memory_;
  void* stream_;
};

}  // namespace

int64_t pool_tokens_workspace_size(const PoolTokensParams& p) { return PoolWorkspace(p).size; }

void pool_tokens_backward(const PoolTokensParams& p, const PoolTokensGradients& gradients, void* workspace,
                          void* stream) {
  Backward backward(p, gradients, workspace, stream);
  with_type(p.data_type, [&](auto element) { backward.run<decltype(element)>(); });
}

}  // namespace vtfast::cuda
