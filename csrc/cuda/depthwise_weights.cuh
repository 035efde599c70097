// The weights of a block's channels: on their way to shared memory, and as a thread has them.
#pragma once

#include "depthwise_patch.cuh"

namespace vtfast::cuda {

template <int kFrames, int kHeight, int kWidth>
struct Taps {
  static constexpr int kT = kFrames, kH = kHeight, kW = kWidth;
  static constexpr int kCount = kT * kH * kW;

  __device__ static constexpr int index(int t, int h, int w) { return (t * kH + h) * kW + w; }
};

// A row a tap, of the floats of all lanes; a row's end is left empty, for neighbours to differ in banks.
template <class Taps, int kCount>
class DepthwiseTable {
 public:
  static constexpr int kPitch = (kMostLanes + 1) * kCount;
  static constexpr int kBytes = Taps::kCount * kPitch * 4;

  __device__ explicit DepthwiseTable(int offset) : shared_(offset) {}

  // Starts copying; the channels of a block are neighbours in memory.
  __device__ void copy(const DepthwiseSlideParams& p, const DepthwiseThread<kCount>& thread) const {
    const float* weights = p.weight + int64_t{thread.chunk_channel} * Taps::kCount;
    const int count = thread.num_channels(p.tiles) * Taps::kCount;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      const int channel = i / Taps::kCount, tap = i % Taps::kCount;
      const int row = p.flipped ? Taps::kCount - 1 - tap : tap;
      ptx::cp_async_4((shared_ + (row * kPitch + channel)).address(), weights + i);
    }
  }

  // To add the source in a target's place is to add one to the weight of the tap between them. A barrier has to follow.
  __device__ void add_residual() const {
    constexpr int kCentre = Taps::kCount / 2;
    for (int i = threadIdx.x; i < kMostLanes * kCount; i += blockDim.x) shared_[kCentre * kPitch + i] += 1.0f;
  }

  __device__ void get(int tap, int lane, float (&values)[kCount]) const {
    const Shared<float> first = shared_ + (tap * kPitch + lane * kCount);
    if constexpr (kCount == 2) {
      const float2 pair = first.template as<float2>()[0];
      values[0] = pair.x;
      values[1] = pair.y;
    } else {
      values[0] = first[0];
    }
  }

 private:
  Shared<float> shared_;
};

// The weights of a thread, in registers if these hold them all.
template <class Taps, int kCount>
class DepthwiseWeights {
  static constexpr bool kResident = Taps::kCount <= 27;

 public:
  __device__ DepthwiseWeights(const DepthwiseTable<Taps, kCount>& table, int lane) : table_(table), lane_(lane) {
    if constexpr (kResident) {
#pragma unroll
      for (int tap = 0; tap < Taps::kCount; ++tap) table.get(tap, lane, weights_[tap]);
    }
  }

  __device__ void get(int tap, float (&values)[kCount]) const {
    if constexpr (kResident) {
#pragma unroll
      for (int c = 0; c < kCount; ++c) values[c] = weights_[tap][c];
    } else {
      table_.get(tap, lane_, values);
    }
  }

 private:
  DepthwiseTable<Taps, kCount> table_;
  int lane_;
  float weights_[kResident ? Taps::kCount : 1][kCount];
};

}  // namespace vtfast::cuda
