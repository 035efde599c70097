// Sums that a thread block makes of what other blocks left in memory, in an order that depends on nothing but sizes.
#pragma once

#include "cuda/ptx.cuh"

namespace vtfast::cuda {

inline constexpr int kSumThreads = 512;

// Calls `store(column, sum)` with the sum of `load(row, column)` over `count` rows; at most kSumThreads columns.
// `shared` has room for kSumThreads floats.
template <class Load, class Store>
__device__ inline void sum_rows(int64_t count, int columns, float* shared, const Load& load, const Store& store) {
  const int slices = kSumThreads / columns;
  const int slice = threadIdx.x / columns, column = threadIdx.x % columns;
  if (slice < slices) {
    float sum = 0;
    for (int64_t row = slice; row < count; row += slices) sum += load(row, column);
    shared[slice * columns + column] = sum;
  }
  __syncthreads();
  if (slice == 0) {
    float sum = 0;
    for (int i = 0; i < slices; ++i) sum += shared[i * columns + column];
    store(column, sum);
  }
  __syncthreads();
}

// One number of every thread reduced to one that all threads get.
template <class Combine>
__device__ inline float reduce(float value, float* shared, const Combine& combine) {
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int half = kSumThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half)
      shared[threadIdx.x] = combine(shared[threadIdx.x], shared[threadIdx.x + half]);
    __syncthreads();
  }
  const float result = shared[0];
  __syncthreads();
  return result;
}

}  // namespace vtfast::cuda
