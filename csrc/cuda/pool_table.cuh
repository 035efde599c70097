// Scale and shift of the norm and the weights of all taps, in shared memory.
#pragma once

#include "pool_channels.cuh"

namespace vtfast::cuda {

// In a row the first halves of all vectors of channels stand before the second ones: neighbouring threads read
// neighbouring floats.
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

  // Half of a row's vector.
  __device__ void get(int row, int vector, int half, float* values) const {
    const int offset = row * (head_dim_ + kRowPadding) + half * (head_dim_ / 2) + vector * kHalf;
    unpack(*shared_.as<float4>(offset * 4).address(), values);
  }

  __device__ void get(int row, int vector, float (&values)[kChannels]) const {
    get(row, vector, 0, values);
    get(row, vector, 1, values + kHalf);
  }

  // The weights of a tap, wherever they are.
  __device__ void get_weights(const PoolKernelParams& p, int tap, int vector, float (&values)[kChannels]) const {
    if (p.resident_taps) return get(kTapRows + tap, vector, values);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      values[c] = p.weight == nullptr ? p.mean : p.weight[(vector * kChannels + c) * p.num_taps + tap];
    }
  }

 private:
  __device__ float& at(int row, int channel) const {
    const int vector = channel / kChannels, half = channel % kChannels / kHalf;
    return shared_[row * (head_dim_ + kRowPadding) + half * (head_dim_ / 2) + vector * kHalf + channel % kHalf];
  }

  Shared<float> shared_{0};
  int head_dim_;
};

}  // namespace vtfast::cuda
