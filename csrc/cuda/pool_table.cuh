// Scale and shift of the norm and the weights of all taps, in shared memory.
#pragma once

#include "pool_channels.cuh"

namespace vtfast::cuda {

// A lane has its column of it, of a vector a row, once for each half of its channels: the rows of a window are a fixed
// distance apart.
class PoolTable {
 public:
  __device__ explicit PoolTable(const PoolKernelParams& p) : column_(p.table_column), half_(p.lanes * p.table_column) {}

  // All threads of the block; a barrier has to follow.
  __device__ void fill(const PoolKernelParams& p) const {
    for (int channel = threadIdx.x; p.norm_weight != nullptr && channel < p.head_dim(); channel += blockDim.x) {
      at(kScaleRow, channel) = p.norm_weight[channel];
      at(kShiftRow, channel) = p.norm_bias[channel];
    }
    for (int i = threadIdx.x; p.resident_taps && i < p.head_dim() * p.num_taps; i += blockDim.x) {
      const int channel = i / p.num_taps, tap = i - channel * p.num_taps;
      at(kTapRows + tap, channel) = p.weight == nullptr ? p.mean : p.weight[i];
    }
  }

  // Half of the channels of a lane.
  __device__ void get(int row, int lane, int half, float* values) const {
    unpack(shared_[half * half_ + lane * column_ + row], values);
  }

  __device__ void get(int row, int lane, float (&values)[kChannels]) const {
    get(row, lane, 0, values);
    get(row, lane, 1, values + kHalf);
  }

  // The weights of a tap, wherever they are.
  __device__ void get_weights(const PoolKernelParams& p, int tap, int lane, float (&values)[kChannels]) const {
    if (p.resident_taps) return get(kTapRows + tap, lane, values);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      values[c] = p.weight == nullptr ? p.mean : p.weight[(lane * kChannels + c) * p.num_taps + tap];
    }
  }

 private:
  __device__ float& at(int row, int channel) const {
    const int lane = channel / kChannels, half = channel % kChannels / kHalf;
    return shared_.as<float>()[(half * half_ + lane * column_ + row) * kHalf + channel % kHalf];
  }

  Shared<float4> shared_{0};
  int column_, half_;  // vectors from a lane to the next, and between its halves
};

}  // namespace vtfast::cuda
