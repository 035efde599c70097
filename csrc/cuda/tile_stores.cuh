// What a warp has gathered for 16 rows on its way to memory.
#pragma once

#include "element.cuh"

namespace vtfast::cuda {

// The warp writes a tile of 16 rows times `factor`, through `scratch`, 16 rows of shared memory that are its own;
// `destination(row)` is where, or null.
template <class T, int D, class Destination>
__device__ inline void store_rows(const float (&tile)[D / 8][4], const float (&factor)[2], int head_dim,
                                  Shared<char> scratch, const Destination& destination) {
  using Row = SharedRow<T, D>;
  const Lane lane;
  __syncwarp();
#pragma unroll
  for (int d = 0; d < D / 8; ++d) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float first = tile[d][2 * half] * factor[half], second = tile[d][2 * half + 1] * factor[half];
      const int row = lane.row + 8 * half;
      if constexpr (sizeof(T) == 4) {
        const int offset = Row::offset(row, 2 * d + lane.column / 4) + lane.column % 4 * 4;
        scratch.as<float2>(offset)[0] = make_float2(first, second);
      } else {
        scratch.as<uint32_t>(Row::offset(row, d) + lane.column * 2)[0] = T::pack(first, second);
      }
    }
  }
  __syncwarp();
#pragma unroll 1
  for (int i = lane.index; i < 16 * Row::kVectors; i += 32) {
    const int row = i / Row::kVectors, vector = i % Row::kVectors;
    T* to = destination(row);
    if (to != nullptr && vector * Row::kPerVector < head_dim) {
      *reinterpret_cast<uint4*>(to + vector * Row::kPerVector) = scratch.as<uint4>(Row::offset(row, vector))[0];
    }
  }
  __syncwarp();
}

// A lane's elements of a row of a tile, as floats.
template <int D>
__device__ inline void store_partial(const float (&tile)[D / 8][4], int half, float factor, int head_dim, float* to) {
  const Lane lane;
#pragma unroll
  for (int d = 0; d < D / 8; ++d) {
    const int column = 8 * d + lane.column;
    if (column < head_dim) {
      to[column] = tile[d][2 * half] * factor;
      to[column + 1] = tile[d][2 * half + 1] * factor;
    }
  }
}

// Adds rows of shared memory, as many as a tile has, to those halves of it that want them.
template <class T, int D>
__device__ inline void add_rows(float (&tile)[D / 8][4], const bool (&wanted)[2], Shared<char> rows) {
  using Row = SharedRow<T, D>;
  const Lane lane;
#pragma unroll
  for (int d = 0; d < D / 8; ++d) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (!wanted[half]) continue;
      const int row = lane.row + 8 * half;
      float2 pair;
      if constexpr (sizeof(T) == 4) {
        pair = rows.as<float2>(Row::offset(row, 2 * d + lane.column / 4) + lane.column % 4 * 4)[0];
      } else {
        const uint32_t packed = rows.as<uint32_t>(Row::offset(row, d) + lane.column * 2)[0];
        pair = make_float2(T::low(packed), T::high(packed));
      }
      tile[d][2 * half] += pair.x;
      tile[d][2 * half + 1] += pair.y;
    }
  }
}

template <int D>
__device__ inline void scale_rows(float (&tile)[D / 8][4], const float (&factor)[2]) {
#pragma unroll
  for (int d = 0; d < D / 8; ++d) {
#pragma unroll
    for (int i = 0; i < 4; ++i) tile[d][i] *= factor[i / 2];
  }
}

}  // namespace vtfast::cuda
