// The gradient of a convolution's weights: for each tap the sum, over windows, of gradient times token under the tap.
#pragma once

#include "pool_partials.cuh"
#include "pool_windows.cuh"

namespace vtfast::cuda {

inline constexpr int kTapTile = 3;  // taps along h and w whose sums a thread holds, those of one frame

// A block sums over a slab of steps, for a tile of taps.
struct WeightGradientParams {
  PoolKernelParams windows;                    // the targets
  Divisor tap_frames, tap_lines, tap_columns;  // tiles of taps
  int slab_steps;
  TokenBytes gradients;  // of windows, [B, N', C]; float
  float* partials;       // [slabs, head_dim, taps]
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

// The sums of a thread. It takes several neighbouring windows at a time where they are `kStride` apart along w, and one
// of those that are further apart, where kStride is 0.
template <class T, int kStride>
class WeightSums {
 public:
  static constexpr int kWindows = kStride == 0 ? 1 : kStride == 1 && sizeof(T) == 2 ? 4 : 2;

  // Adds the products of the windows of a row. What is not there, padding or a window, is left out, not added as
  // zeros: times what is not finite they would be NaN.
  __device__ void add(const WeightGradientParams& p, const TapTile& tile, const PoolRow& row) {
    const PoolKernelParams& windows = p.windows;
    const int t = windows.t.token(row.t, tile.t);
    if (!inside(t, windows.t.size)) return;
    const int count = windows.w.pooled - row.w;
    float gradients[kWindows][kChannels] = {};
    load_gradients(p, row, count, gradients);

    const int first_h = windows.h.token(row.h, tile.h), first_w = windows.w.token(row.w, tile.w);
    const int64_t stride = windows.source.token_stride, line_stride = windows.w.size * stride;
    const T* line = shifted(channels_of<T>(windows.source, row),
                            (int64_t{t} * windows.h.size + first_h) * line_stride + first_w * stride);
#pragma unroll
    for (int i = 0; i < kTapTile; ++i, line = shifted(line, line_stride)) {
      if (!inside(first_h + i, windows.h.size)) continue;
      uint4 columns[kColumns][kVectors] = {};
      load_columns(line, stride, first_w, windows.w.size, columns);
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        if (inside(first_w + j, windows.w.size)) add_column(columns[j], j, count, gradients, sums_[i]);
      }
    }
  }

  __device__ const float (&of_tap(int h, int w) const)[kChannels] { return sums_[h][w]; }

 private:
  static constexpr int kColumns = (kWindows - 1) * kStride + kTapTile;
  static constexpr int kVectors = sizeof(T) / 2;

  __device__ static void load_gradients(const WeightGradientParams& p, const PoolRow& row, int count,
                                        float (&gradients)[kWindows][kChannels]) {
    const int64_t window = (int64_t{row.t} * p.windows.h.pooled + row.h) * p.windows.w.pooled + row.w;
    const float* first = shifted(channels_of<float>(p.gradients, row), window * p.gradients.token_stride);
#pragma unroll
    for (int i = 0; i < kWindows; ++i, first = shifted(first, p.gradients.token_stride)) {
      if (i < count) load(first, gradients[i]);
    }
  }

  __device__ static void load_columns(const T* from, int64_t stride, int first_w, int width,
                                      uint4 (&columns)[kColumns][kVectors]) {
#pragma unroll
    for (int i = 0; i < kColumns; ++i, from = shifted(from, stride)) {
      if (!inside(first_w + i, width)) continue;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) columns[i][v] = reinterpret_cast<const uint4*>(from)[v];
    }
  }

  __device__ static void add_column(const uint4 (&column)[kVectors], int place, int count,
                                    const float (&gradients)[kWindows][kChannels], float (&sums)[kTapTile][kChannels]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float token[kHalf];
      unpack<T>(column[half % kVectors], half, token);
#pragma unroll
      for (int window = 0; window < kWindows; ++window) {
        const int tap = place - window * kStride;
        if (tap < 0 || tap >= kTapTile || window >= count) continue;
#pragma unroll
        for (int c = half * kHalf; c < (half + 1) * kHalf; ++c) sums[tap][c] += gradients[window][c] * token[c % kHalf];
      }
    }
  }

  float sums_[kTapTile][kTapTile][kChannels] = {};
};

template <class T, int kStride>
__global__ void __launch_bounds__(kPoolThreads, 2)
    pool_weight_gradient_kernel(const __grid_constant__ WeightGradientParams p) {
  using Sums = WeightSums<T, kStride>;
  const PoolKernelParams& windows = p.windows;
  const TapTile tile(p);
  const int first_step = windows.prefix_steps + tile.slab * p.slab_steps;
  const int last_step = min(first_step + p.slab_steps, windows.steps);
  Sums sums;
  for (int step = first_step; step < last_step; ++step) {
    const PoolRow row(windows, step, 1, Sums::kWindows);
    if (row.exists) sums.add(p, tile, row);
  }
  const RowSums of_rows(windows.block_rows, windows.lanes, Shared<float>(0));
  float* partials = p.partials + int64_t{tile.slab} * windows.head_dim() * windows.num_taps;
#pragma unroll
  for (int i = 0; i < kTapTile * kTapTile; ++i) {
    const int h = tile.h + i / kTapTile, w = tile.w + i % kTapTile;
    const int tap = (tile.t * windows.h.kernel + h) * windows.w.kernel + w;
    const bool exists = h < windows.h.kernel && w < windows.w.kernel;
    of_rows.set(sums.of_tap(i / kTapTile, i % kTapTile));
    of_rows.sum([&](int channel, float sum) {
      if (exists) partials[channel * windows.num_taps + tap] = sum;
    });
  }
}

}  // namespace vtfast::cuda
