// From the gradient of what was pooled and normalised to that of what was pooled. Nothing of the forward pass is kept:
// this pools again. The gradient of a prefix token is its own at once; that of windows is left as float.
#pragma once

#include "pool_norm.cuh"
#include "pool_partials.cuh"
#include "pool_targets.cuh"

namespace vtfast::cuda {

// The gradients of scale and shift of the norm, which a block adds up in shared memory.
struct NormGradient {
  static constexpr int kBytes = 2 * RowSums::kBytes;

  RowSums scale, shift;

  __device__ NormGradient(const PoolKernelParams& p, bool wanted)
      : scale(p.block_rows, p.lanes, Shared<float>(p.table_bytes)),
        shift(p.block_rows, p.lanes, Shared<float>(p.table_bytes + RowSums::kBytes)) {
    if (!wanted) return;
    const float zeros[kChannels] = {};
    scale.set(zeros);
    shift.set(zeros);
  }

  __device__ void leave(const PoolKernelParams& p) const {
    float* partials = p.norm_partials + int64_t{blockIdx.x} * 2 * p.head_dim();
    scale.sum([&](int channel, float sum) { partials[channel] = sum; });
    shift.sum([&](int channel, float sum) { partials[p.head_dim() + channel] = sum; });
  }
};

template <class T>
__device__ inline void load_gradient(const PoolKernelParams& p, const PoolRow& row, int64_t token,
                                     float (&gradient)[kChannels]) {
  const TokenBytes& tokens = row.is_prefix ? p.grad_out_prefix : p.grad_out;
  load(shifted(channels_of<T>(tokens, row), token * tokens.token_stride), gradient);
}

// With y = scale x + shift and x = (z - mean) / spread: d_z = (scale d_y - mean(scale d_y) - x mean(scale d_y x)) /
// spread. `targets` are z, and become d_z.
template <class Pool>
__device__ inline void differentiate_norm(const PoolKernelParams& p, const PoolRow& row, const NormGradient& norm,
                                          float (&targets)[Pool::kTargets][kChannels]) {
  using T = typename Pool::Source;
  constexpr int kTargets = Pool::kTargets;
  float inverse_spreads[kTargets], means[2 * kTargets] = {};
  standardise(p, row, targets, inverse_spreads);

  float scale[kChannels], d_scale[kChannels] = {}, d_shift[kChannels] = {};
  PoolTable(p).get(kScaleRow, row.lane, scale);
  for_each_target<Pool>(p, row, [&](int i, int64_t token) {
    float gradient[kChannels];
    load_gradient<T>(p, row, token, gradient);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const float product = gradient[c] * targets[i][c];
      d_scale[c] += product;
      d_shift[c] += gradient[c];
      means[i] += scale[c] * gradient[c];
      means[kTargets + i] += scale[c] * product;
    }
  });
  norm.scale.add(d_scale);
  norm.shift.add(d_shift);

  sum_over_lanes(p, row, means, [&](float sum) { return sum * p.head_share; });
  for_each_target<Pool>(p, row, [&](int i, int64_t token) {
    float gradient[kChannels];
    load_gradient<T>(p, row, token, gradient);  // again: registers are short
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const float centred = scale[c] * gradient[c] - means[i] - targets[i][c] * means[kTargets + i];
      targets[i][c] = inverse_spreads[i] * centred;
    }
  });
}

template <class Pool>
__global__ void __launch_bounds__(kPoolThreads, 2) pool_gradient_kernel(const __grid_constant__ PoolKernelParams p) {
  using T = typename Pool::Source;
  const bool has_norm = p.norm_weight != nullptr;
  PoolTable(p).fill(p);
  __syncthreads();
  const NormGradient norm(p, has_norm);
  for (int step = blockIdx.x; step < p.steps; step += gridDim.x) {
    const PoolRow row(p, step, Pool::kLines, Pool::kColumns);
    float targets[Pool::kTargets][kChannels] = {};
    if (row.exists && (has_norm || p.winners != nullptr)) pool_row<Pool>(p, row, targets);
    if (has_norm) {
      differentiate_norm<Pool>(p, row, norm, targets);
    } else {
      for_each_target<Pool>(p, row, [&](int i, int64_t token) { load_gradient<T>(p, row, token, targets[i]); });
    }
    for_each_target<Pool>(p, row, [&](int i, int64_t token) {
      if (row.is_prefix) {
        store(shifted(channels_of<T>(p.target_prefix, row), token * p.target_prefix.token_stride), targets[i]);
      } else {
        store(shifted(channels_of<float>(p.target, row), token * p.target.token_stride), targets[i]);
      }
    });
  }
  if (has_norm) norm.leave(p);
}

}  // namespace vtfast::cuda
