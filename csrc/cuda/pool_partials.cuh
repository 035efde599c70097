// Sums over all targets, in an order that depends on sizes alone: a block leaves those of its own (column_sums.h adds
// the blocks up).
#pragma once

#include "pool_row.cuh"
#include "shared.cuh"

namespace vtfast::cuda {

// Eight channels of each thread of a block, in shared memory, and their sums over the rows of the block.
class RowSums {
 public:
  static constexpr int kBytes = kChannels * kPoolThreads * 4;

  __device__ RowSums(int rows, int lanes, Shared<float> shared) : shared_(shared), rows_(rows), lanes_(lanes) {}

  __device__ void set(const float (&values)[kChannels]) const {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) shared_[c * kPoolThreads + threadIdx.x] = values[c];
  }

  __device__ void add(const float (&values)[kChannels]) const {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) shared_[c * kPoolThreads + threadIdx.x] += values[c];
  }

  // Calls store(c, sum) for each channel of a row. All threads of the block have to come.
  template <class Store>
  __device__ void sum(const Store& store) const {
    __syncthreads();
    for (int i = threadIdx.x; i < lanes_ * kChannels; i += blockDim.x) {
      const int first = i % kChannels * kPoolThreads + i / kChannels;
      float sum = 0;
      for (int row = 0; row < rows_; ++row) sum += shared_[first + row * lanes_];
      store(i, sum);
    }
    __syncthreads();
  }

 private:
  const Shared<float> shared_;
  const int rows_, lanes_;
};

}  // namespace vtfast::cuda
