// What is shared by all groups: the bias table on its way in, the gradients of table and padding on their way out.
#pragma once

#include "block_sum.cuh"
#include "element.cuh"
#include "kernel_params.h"

namespace vtfast::cuda {

inline constexpr int kTableSlice = 64;  // rows of the table that a block sums

struct TableParams {
  const float* from;  // [R, heads], or [blocks of a head, heads, R]
  float* to;          // [heads, R], or [R, heads]
  int table_size;     // R
  int num_heads;
  int64_t count;  // blocks of a head
};

// Heads apart, for logarithms of base 2.
__global__ void __launch_bounds__(kSumThreads, 1) prepare_table_kernel(const __grid_constant__ TableParams p) {
  const int64_t i = int64_t{blockIdx.x} * kSumThreads + threadIdx.x;
  if (i >= int64_t{p.table_size} * p.num_heads) return;
  p.to[i] = p.from[i % p.table_size * p.num_heads + i / p.table_size] * kLog2e;
}

__global__ void __launch_bounds__(kSumThreads, 1) sum_table_kernel(const __grid_constant__ TableParams p) {
  float* shared = reinterpret_cast<float*>(ptx::shared_memory());
  const int head = blockIdx.x % p.num_heads, first = blockIdx.x / p.num_heads * kTableSlice;
  sum_rows(
      p.count, kTableSlice, shared,
      [&](int64_t block, int column) {
        const int row = first + column;
        return row < p.table_size ? p.from[(block * p.num_heads + head) * p.table_size + row] : 0.0f;
      },
      [&](int column, float sum) {
        const int row = first + column;
        if (row < p.table_size) p.to[int64_t{row} * p.num_heads + head] = sum;
      });
}

struct PaddingParams {
  const float* from;  // [blocks of a head, heads, 2 * d]
  void* to;           // [3 * C]
  int num_heads;
  int head_dim;
  int64_t count;  // blocks of a head
};

// A padded position is no query, so its q has no gradient.
template <class T>
__global__ void __launch_bounds__(kSumThreads, 1) sum_padding_kernel(const __grid_constant__ PaddingParams p) {
  float* shared = reinterpret_cast<float*>(ptx::shared_memory());
  const int head = blockIdx.x, width = 2 * p.head_dim, channels = p.num_heads * p.head_dim;
  T* to = static_cast<T*>(p.to) + head * p.head_dim;
  for (int i = threadIdx.x; i < p.head_dim; i += blockDim.x) to[i] = from_float<T>(0);
  sum_rows(
      p.count, width, shared,
      [&](int64_t block, int column) { return p.from[(block * p.num_heads + head) * width + column]; },
      [&](int column, float sum) {
        to[(1 + column / p.head_dim) * channels + column % p.head_dim] = from_float<T>(sum);
      });
}

}  // namespace vtfast::cuda
