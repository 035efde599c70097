// The gradients of weights and bias for windows of any kind: for each tap the sum, over windows, of gradient times
// token under the tap.
#pragma once

#include "depthwise_any.cuh"
#include "pool_partials.cuh"

namespace vtfast::cuda {

// The first tap of a block's tile, and what the block sums over.
struct DepthwiseTapTile {
  int t, h, w;
  int chunk, slab;

  __device__ explicit DepthwiseTapTile(const DepthwiseAnyGradientParams& p) {
    int place = blockIdx.x;
    w = take_digit(place, p.tap_columns) * kAnyTapTile;
    h = take_digit(place, p.tap_lines) * kAnyTapTile;
    t = take_digit(place, p.tap_frames);
    chunk = take_digit(place, p.windows.chunks);
    slab = place;
  }

  __device__ bool is_first() const { return t + h + w == 0; }
};

template <class T>
__global__ void __launch_bounds__(kDepthwiseThreads)
    depthwise_any_gradient_kernel(const __grid_constant__ DepthwiseAnyGradientParams p) {
  const DepthwiseAnyParams& windows = p.windows;
  const DepthwiseTapTile tile(p);
  const int first = tile.slab * p.slab_steps, last = min(first + p.slab_steps, windows.steps);
  float sums[kAnyTapTile][kAnyTapTile][kChannels] = {}, bias[kChannels] = {};
  for (int step = first; step < last; ++step) {
    const DepthwiseAnyRow row(windows, tile.chunk, step);
    if (!row.exists) continue;
    float gradient[kChannels];
    load(token_of<T>(p.gradients, row, row.t, row.h, row.w), gradient);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) bias[c] += gradient[c];
    const int t = windows.t.token(row.t, tile.t);
    if (!inside(t, windows.t.size)) continue;
#pragma unroll
    for (int i = 0; i < kAnyTapTile * kAnyTapTile; ++i) {
      const int tap_h = i / kAnyTapTile, tap_w = i % kAnyTapTile;
      const int h = windows.h.token(row.h, tile.h + tap_h), w = windows.w.token(row.w, tile.w + tap_w);
      if (!inside(h, windows.h.size) || !inside(w, windows.w.size)) continue;
      float token[kChannels];
      load(token_of<T>(windows.source, row, t, h, w), token);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) sums[tap_h][tap_w][c] += gradient[c] * token[c];
    }
  }

  const RowSums of_rows(windows.block_rows, windows.lanes, Shared<float>(0));
  const int chunk_channel = tile.chunk * windows.lanes * kChannels;
  const int64_t first_channel = int64_t{tile.slab} * windows.channels + chunk_channel;
  const auto leave = [&](const float (&values)[kChannels], float* to, int stride, bool wanted) {
    of_rows.set(values);
    of_rows.sum([&](int channel, float sum) {
      if (wanted && chunk_channel + channel < windows.channels) to[(first_channel + channel) * stride] = sum;
    });
  };
#pragma unroll
  for (int i = 0; i < kAnyTapTile * kAnyTapTile; ++i) {
    const int h = tile.h + i / kAnyTapTile, w = tile.w + i % kAnyTapTile;
    const int tap = (tile.t * windows.h.kernel + h) * windows.w.kernel + w;
    leave(sums[i / kAnyTapTile][i % kAnyTapTile], p.weight_partials + tap, windows.num_taps,
          h < windows.h.kernel && w < windows.w.kernel);
  }
  leave(bias, p.bias_partials, 1, tile.is_first());
}

}  // namespace vtfast::cuda
