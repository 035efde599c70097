// Weighted sums over windows of any kind, and over the windows that hold a token.
#pragma once

#include "depthwise_params.h"
#include "pool_channels.cuh"
#include "pool_windows.cuh"

namespace vtfast::cuda {

// What a thread works on in a step.
struct DepthwiseAnyRow {
  int index, lane;  // of the row in its block, of the thread in its row
  int chunk_channel, channel;
  int clip, t, h, w;
  bool exists;

  __device__ DepthwiseAnyRow(const DepthwiseAnyParams& p, int chunk, int step)
      : index(static_cast<int>(threadIdx.x) / p.lanes),
        lane(static_cast<int>(threadIdx.x) % p.lanes),
        chunk_channel(chunk * p.lanes * kChannels),
        channel(chunk_channel + lane * kChannels) {
    int place = step * p.block_rows + index;
    exists = index < p.block_rows && place < p.rows && channel < p.channels;
    if (!exists) place = 0;
    w = take_digit(place, p.columns);
    h = take_digit(place, p.lines);
    t = take_digit(place, p.frames);
    clip = place;
  }
};

// The thread's channels of a token of its clip.
template <class T, class Void>
__device__ inline auto token_of(const BasicGridBytes<Void>& grid, const DepthwiseAnyRow& row, int t, int h, int w) {
  using Pointer = std::conditional_t<std::is_const_v<Void>, const T*, T*>;
  const int64_t offset = row.clip * grid.batch_stride + t * grid.t_stride + h * grid.h_stride + w * grid.w_stride;
  return shifted(static_cast<Pointer>(grid.data) + row.channel, offset);
}

// The weights of a block's channels: a row a tap, first the first halves of the lanes' channels.
class DepthwiseAnyTable {
 public:
  __device__ explicit DepthwiseAnyTable(const DepthwiseAnyParams& p) : lanes_(p.lanes) {}

  // All threads of the block; a barrier has to follow.
  __device__ void fill(const DepthwiseAnyParams& p, int chunk_channel) const {
    const float* weights = p.weight + int64_t{chunk_channel} * p.num_taps;
    const int count = min(p.lanes * kChannels, p.channels - chunk_channel) * p.num_taps;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      const int channel = i / p.num_taps, tap = i - channel * p.num_taps;
      const int half = channel % kChannels / kHalf;
      shared_.as<float>()[((tap * 2 + half) * lanes_ + channel / kChannels) * kHalf + channel % kHalf] = weights[i];
    }
  }

  // The weights of a tap, wherever they are.
  __device__ void get(const DepthwiseAnyParams& p, int tap, const DepthwiseAnyRow& row,
                      float (&values)[kChannels]) const {
    if (p.table_bytes > 0) {
      unpack(shared_[2 * tap * lanes_ + row.lane], values);
      unpack(shared_[(2 * tap + 1) * lanes_ + row.lane], values + kHalf);
    } else {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) values[c] = p.weight[int64_t{row.channel + c} * p.num_taps + tap];
    }
  }

 private:
  Shared<float4> shared_{0};
  int lanes_;
};

// Calls visit(tap, t, h, w) for each source of a row's target, in the order of taps or of windows.
template <Flow kFlow, class Visit>
__device__ inline void for_each_source(const DepthwiseAnyParams& p, const DepthwiseAnyRow& row, const Visit& visit) {
  const Reach<kFlow> frames(p.t, row.t), lines(p.h, row.h), columns(p.w, row.w);
  for (int t = frames.first; t < frames.last; ++t) {
    for (int h = lines.first; h < lines.last; ++h) {
      const int plane_tap = tap_of<kFlow>(p.t, row.t, t) * p.h.kernel + tap_of<kFlow>(p.h, row.h, h);
#pragma unroll 3
      for (int w = columns.first; w < columns.last; ++w) {
        visit(plane_tap * p.w.kernel + tap_of<kFlow>(p.w, row.w, w), t, h, w);
      }
    }
  }
}

template <class T, Flow kFlow>
__global__ void __launch_bounds__(kDepthwiseThreads, 5)
    depthwise_any_kernel(const __grid_constant__ DepthwiseAnyParams p) {
  int first_step = blockIdx.x;
  const int chunk = take_digit(first_step, p.chunks);
  const DepthwiseAnyTable table(p);
  if (p.table_bytes > 0) table.fill(p, chunk * p.lanes * kChannels);
  __syncthreads();
  for (int step = first_step; step < p.steps; step += p.blocks) {
    const DepthwiseAnyRow row(p, chunk, step);
    if (!row.exists) continue;
    float sums[kChannels] = {};
    if (p.bias != nullptr) {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) sums[c] = p.bias[row.channel + c];
    }
    const auto add = [&](const float (&weights)[kChannels], int t, int h, int w) {
      float values[kChannels];
      load(token_of<T>(p.source, row, t, h, w), values);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) sums[c] += weights[c] * values[c];
    };
    for_each_source<kFlow>(p, row, [&](int tap, int t, int h, int w) {
      float weights[kChannels];
      table.get(p, tap, row, weights);
      add(weights, t, h, w);
    });
    if (p.residual) {
      const float ones[kChannels] = {1, 1, 1, 1, 1, 1, 1, 1};
      add(ones, row.t, row.h, row.w);
    }
    store(token_of<T>(p.target, row, row.t, row.h, row.w), sums);
  }
}

}  // namespace vtfast::cuda
