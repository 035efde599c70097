// Scale and shift of the norm and the weights of all taps, in shared memory.
#pragma once

#include "pool_channels.cuh"

namespace vtfast::cuda {

// In a row the first halves of the channels of all lanes stand before the second ones: neighbours read neighbouring
// floats.
class PoolTable {
 public:
  __device__ explicit PoolTable(const PoolKernelParams& p) : head_dim_(p.head_dim()) {}

  // All threads of the block; a barrier has to follow.
  __device__ void fill(const PoolKernelParams& p) const {
    for (int channel = threadIdx.x; p.norm_weight != nullptr && channel < head_dim_; channel += blockDim.x) {
      at(kScaleRow, channel) = p.norm_weight[channel];
      at(kShiftRow, channel) = p.norm_bias[channel];
    }
    for (int i = threadIdx.x; p.resident_taps && i < head_dim_ * p.num_taps; i += blockDim.x) {
      const int channel = i / p.num_taps, tap = i - channel * p.num_taps;
      at(kTapRows + tap, channel) = p.weight == nullptr ? p.mean : p.weight[i];
    }
  }

  // Half of the channels of a lane.
  __device__ void get(int row, int lane, int half, float* values) const {
    const int offset = row * (head_dim_ + kRowPadding) + half * (head_dim_ / 2) + lane * kHalf;
    unpack(*shared_.as<float4>(offset * 4).address(), values);
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
    return shared_[row * (head_dim_ + kRowPadding) + half * (head_dim_ / 2) + lane * kHalf + channel % kHalf];
  }

  Shared<float> shared_{0};
  int head_dim_;
};

}  // namespace vtfast::cuda
