// What relative positions add to the products of attention: as many elements more as a launch needs, a multiple of 16.
#pragma once

#include "product.cuh"

namespace vtfast::cuda {

// Rows of relative scores or places in shared memory, as the layout of a product.
struct RelativeRows {
  int pitch;             // bytes from one row to the next
  int first_vector = 0;  // of a row, that the product begins with

  __device__ static int row(int column) { return column; }
  __device__ int offset(int row, int vector) const { return row * pitch + (first_vector + vector) * 16; }
};

template <int kBlocks>
__device__ inline void add_relative_float(Block (&scores)[kBlocks], Shared<char> rows, Shared<char> columns,
                                          const RelativeRows& layout, int width, int count) {
  const Lane lane;
  const auto vector = [&](Shared<char> from, int row, int k) { return from.as<float4>(layout.offset(row, k))[0]; };
#pragma unroll 1
  for (int k = 0; k < width / 4; ++k) {
    const float4 a[2] = {vector(rows, lane.row, k), vector(rows, lane.row + 8, k)};
#pragma unroll
    for (int i = 0; i < 4 * kBlocks; ++i) {
      if (4 * i >= count) break;
      const float4 b = vector(columns, 8 * (i / 2) + lane.column + i % 2, k);
      float (&tile)[4] = scores[i / 4][i / 2 % 2];
      add_dot(tile[i % 2], a[0], b);
      add_dot(tile[i % 2 + 2], a[1], b);
    }
  }
}

// Blocks of scores += rows columns^T, `width` elements wide. The first `count` columns exist, a multiple of 16.
template <class T, int kBlocks>
__device__ inline void add_relative(Block (&scores)[kBlocks], Shared<char> rows, Shared<char> columns,
                                    const RelativeRows& layout, int width, int count) {
  if constexpr (sizeof(T) == 4) {
    add_relative_float(scores, rows, columns, layout, width, count);
  } else {
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int k = 0; k < width / 16; ++k) {
      uint32_t a[4];
      ptx::ldmatrix_x4(a, (rows + layout.offset(lane % 16, 2 * k + lane / 16)).address());
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        if (16 * b >= count) break;
        uint32_t c[4];
        const int column = 16 * b + lane % 8 + lane / 16 * 8;
        ptx::ldmatrix_x4(c, (columns + layout.offset(column, 2 * k + lane / 8 % 2)).address());
        T::multiply(scores[b][0], a, c[0], c[1]);
        T::multiply(scores[b][1], a, c[2], c[3]);
      }
    }
  }
}

}  // namespace vtfast::cuda
