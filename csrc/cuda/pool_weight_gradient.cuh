// The gradient of a convolution's weights: for each tap the sum, over windows, of gradient times token under the tap.
#pragma once

#include "pool_partials.cuh"
#include "pool_windows.cuh"

namespace vtfast::cuda {

inline constexpr int kTapTile = 3;  // taps along h and w whose sums a thread holds, those of one frame

// A block sums over a slab of steps, for a tile of taps. A piece of channels is a head.
struct WeightGradientParams {
  PoolKernelParams windows;                    // targets, one to a tile
  Divisor tap_frames, tap_lines, tap_columns;  // tiles of taps
  int slab_steps;
  TokenRows gradients;  // of windows, [B, N', C]; float
  float* partials;      // [slabs, head_dim, taps]
};

// The first tap of a block's tile.
struct TapTile {
  int t, h, w;
  int slab;

  __device__ explicit TapTile(const WeightGradientParams& p) {
    int place = blockIdx.x;
    w = take_digit(place, p.tap_columns) * kTapTile;
    h = take_digit(place, p.tap_lines) * kTapTile;
    t = take_digit(place, p.tap_frames);
    slab = place;
  }
};

// Adds the products of one window's gradient with the tokens under its taps. Padding is left out, not added as zeros:
// its product with a gradient that is not finite would be NaN.
template <class T>
__device__ inline void add_products(const WeightGradientParams& p, const TapTile& tile, const PoolRow& row,
                                    float (&sums)[kTapTile][kTapTile][kChannels]) {
  const PoolKernelParams& windows = p.windows;
  const int t = windows.t.token(row.t, tile.t);
  if (!inside(t, windows.t.size)) return;
  const int window = (row.t * windows.h.pooled + row.h) * windows.w.pooled + row.w;
  float gradient[kChannels];
  Channels<float>(channels_of<float>(p.gradients, row) + int64_t{window} * p.gradients.token_stride).get(gradient);
  const T* tokens = channels_of<T>(windows.source, row);
  const int first = windows.w.token(row.w, tile.w);
#pragma unroll
  for (int i = 0; i < kTapTile; ++i) {
    const int h = windows.h.token(row.h, tile.h + i);
    if (!inside(h, windows.h.size)) continue;
    const int line = (t * windows.h.size + h) * windows.w.size;
    Channels<T> columns[kTapTile];
#pragma unroll
    for (int j = 0; j < kTapTile; ++j) {
      const int64_t token = line + first + j;
      if (inside(first + j, windows.w.size)) columns[j] = Channels<T>(tokens + token * windows.source.token_stride);
    }
#pragma unroll
    for (int j = 0; j < kTapTile; ++j) {
      if (!inside(first + j, windows.w.size)) continue;
      float token[kChannels];
      columns[j].get(token);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) sums[i][j][c] += gradient[c] * token[c];
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kPoolThreads, 2)
    pool_weight_gradient_kernel(const __grid_constant__ WeightGradientParams p) {
  const PoolKernelParams& windows = p.windows;
  const TapTile tile(p);
  const int first_step = tile.slab * p.slab_steps,
            last_step = min(first_step + p.slab_steps, windows.steps - windows.prefix_steps);
  float sums[kTapTile][kTapTile][kChannels] = {};
  for (int step = first_step; step < last_step; ++step) {
    const PoolRow row(windows, windows.prefix_steps + step, 1, 1);
    if (row.exists) add_products<T>(p, tile, row, sums);
  }
  const RowSums of_rows(windows, Shared<float>(0));
  float* partials = p.partials + int64_t{tile.slab} * windows.head_dim() * windows.num_taps;
#pragma unroll
  for (int i = 0; i < kTapTile; ++i) {
#pragma unroll
    for (int j = 0; j < kTapTile; ++j) {
      const int h = tile.h + i, w = tile.w + j;
      const int tap = (tile.t * windows.h.kernel + h) * windows.w.kernel + w;
      const bool exists = h < windows.h.kernel && w < windows.w.kernel;
      of_rows.set(sums[i][j]);
      of_rows.sum([&](int channel, float sum) {
        if (exists) partials[channel * windows.num_taps + tap] = sum;
      });
    }
  }
}

}  // namespace vtfast::cuda
