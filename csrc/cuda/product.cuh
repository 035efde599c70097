// The two products of attention on tiles of 16 rows, one warp each: rows with columns (scores = q k^T), and weights
// with columns (out = p v). Sixteen-bit types use the tensor cores; float32 is exact, on the ordinary units.
#pragma once

#include "element.cuh"

namespace vtfast::cuda {

// 16 rows x 16 columns of accumulators: two tiles of 16 x 8.
using Block = float[2][4];

// The left side of a product: 16 rows of D elements. With `kHold` they stay in registers.
template <class T, int D, bool kHold>
class Rows {
 public:
  // `tile` is row 0, a multiple of 16 rows from the start of its operand.
  __device__ void load(Shared<char> tile) {
    const Lane lane;
    tile_ = tile;
    row_ = lane.index % 16;
    if constexpr (kHold) {
#pragma unroll
      for (int k = 0; k < D / 16; ++k) read(held_[k], k);
    }
  }

  __device__ void fragment(uint32_t (&a)[4], int k) const {
    if constexpr (kHold) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = held_[k][i];
    } else {
      read(a, k);
    }
  }

 private:
  __device__ void read(uint32_t (&a)[4], int k) const {
    ptx::ldmatrix_x4(a, (tile_ + SharedRow<T, D>::offset(row_, 2 * k + threadIdx.x % 32 / 16)).address());
  }

  Shared<char> tile_{0};
  int row_;
  uint32_t held_[kHold ? D / 16 : 1][4];
};

// Weights as the left side of a product with 16 columns' rows.
template <class T>
struct Weights {
  uint32_t a[4];

  __device__ explicit Weights(const Block& block) {
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = T::pack(block[i / 2][i % 2 * 2], block[i / 2][i % 2 * 2 + 1]);
  }

  // The weights as they were rounded.
  __device__ void read(Block& block) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      block[i / 2][i % 2 * 2] = T::low(a[i]);
      block[i / 2][i % 2 * 2 + 1] = T::high(a[i]);
    }
  }
};

// scores = rows columns^T, for 16 columns: rows 0 to 15 from `columns` on, or what else `layout.row(column)` says,
// whose vectors are at `layout.offset(row, vector)`.
template <class T, int D, bool kHold, class Layout = SharedRow<T, D>>
__device__ inline void multiply(Block& scores, const Rows<T, D, kHold>& rows, Shared<char> columns,
                                const Layout& layout = {}) {
  const int lane = threadIdx.x % 32, row = layout.row(lane % 8 + lane / 16 * 8);
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[n][i] = 0;
  }
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
    uint32_t a[4], b[4];
    rows.fragment(a, k);
    ptx::ldmatrix_x4(b, (columns + layout.offset(row, 2 * k + lane / 8 % 2)).address());
    T::multiply(scores[0], a, b[0], b[1]);
    T::multiply(scores[1], a, b[2], b[3]);
  }
}

// Columns' rows as the right side of a product, elements 16 d to 16 d + 15 of them; `row` is layout.row(lane % 16).
template <class Layout>
__device__ inline void read_transposed(uint32_t (&b)[4], Shared<char> columns, const Layout& layout, int row, int d) {
  ptx::ldmatrix_x4_trans(b, (columns + layout.offset(row, 2 * d + threadIdx.x % 32 / 16)).address());
}

// sum += weights columns, 8 * kTiles elements wide, or fewer: 8 * tiles, an even number of tiles.
template <class T, int kTiles, class Layout = SharedRow<T, 8 * kTiles>>
__device__ inline void accumulate(float (&sum)[kTiles][4], const Weights<T>& weights, Shared<char> columns,
                                  const Layout& layout = {}, int tiles = kTiles) {
  const int row = layout.row(threadIdx.x % 16);
#pragma unroll
  for (int d = 0; d < kTiles / 2; ++d) {
    if (2 * d >= tiles) break;
    uint32_t b[4];
    read_transposed(b, columns, layout, row, d);
    T::multiply(sum[2 * d], weights.a, b[0], b[1]);
    T::multiply(sum[2 * d + 1], weights.a, b[2], b[3]);
  }
}

// The same for two sums, which share what is read as far as there are registers for it.
template <class T, int kTiles>
__device__ inline void accumulate(float (&first)[kTiles][4], const Weights<T>& first_weights,
                                  float (&second)[kTiles][4], const Weights<T>& second_weights, Shared<char> columns) {
  if constexpr (kTiles > 12) {
    accumulate(first, first_weights, columns);
    accumulate(second, second_weights, columns);
  } else {
#pragma unroll
    for (int d = 0; d < kTiles / 2; ++d) {
      uint32_t b[4];
      read_transposed(b, columns, SharedRow<T, 8 * kTiles>{}, threadIdx.x % 16, d);
      T::multiply(first[2 * d], first_weights.a, b[0], b[1]);
      T::multiply(first[2 * d + 1], first_weights.a, b[2], b[3]);
      T::multiply(second[2 * d], second_weights.a, b[0], b[1]);
      T::multiply(second[2 * d + 1], second_weights.a, b[2], b[3]);
    }
  }
}

// sum += the weights of each row; every column of the result holds it.
template <class T>
__device__ inline void accumulate_rows(float (&sum)[4], const Weights<T>& weights) {
  const uint32_t ones = T::pack(1, 1);
  T::multiply(sum, weights.a, ones, ones);
}

template <int D, bool kHold>
class Rows<float, D, kHold> {
 public:
  __device__ void load(Shared<char> tile) { tile_ = tile; }

  __device__ float4 vector(int row, int k) const { return tile_.as<float4>(SharedRow<float, D>::offset(row, k))[0]; }

 private:
  Shared<char> tile_{0};
};

template <>
struct Weights<float> {
  Block values;

  __device__ explicit Weights(const Block& block) { read(block, values); }
  __device__ void read(Block& block) const { read(values, block); }

 private:
  __device__ static void read(const Block& from, Block& to) {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) to[n][i] = from[n][i];
    }
  }
};

__device__ inline void add_dot(float& sum, const float4& a, const float4& b) {
  sum = fmaf(a.x, b.x, sum);
  sum = fmaf(a.y, b.y, sum);
  sum = fmaf(a.z, b.z, sum);
  sum = fmaf(a.w, b.w, sum);
}

template <int D, bool kHold, class Layout = SharedRow<float, D>>
__device__ inline void multiply(Block& scores, const Rows<float, D, kHold>& rows, Shared<char> columns,
                                const Layout& layout = {}) {
  const Lane lane;
  int column[2][2];
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[n][i] = 0;
#pragma unroll
    for (int c = 0; c < 2; ++c) column[n][c] = layout.row(8 * n + lane.column + c);
  }
#pragma unroll 1
  for (int k = 0; k < D / 4; ++k) {
    const float4 a[2] = {rows.vector(lane.row, k), rows.vector(lane.row + 8, k)};
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const float4 b = columns.as<float4>(layout.offset(column[n][c], k))[0];
        add_dot(scores[n][c], a[0], b);
        add_dot(scores[n][c + 2], a[1], b);
      }
    }
  }
}

template <int kTiles, class Layout = SharedRow<float, 8 * kTiles>>
__device__ inline void accumulate(float (&sum)[kTiles][4], const Weights<float>& weights, Shared<char> columns,
                                  const Layout& layout = {}, int tiles = kTiles) {
  const Lane lane;
  [[maybe_unused]] constexpr int kUnroll = kTiles < 12 ? 4 : 1;  // as far as there are registers for it
#pragma unroll 1
  for (int quarter = 0; quarter < 4; ++quarter) {
    const int owner = lane.index / 4 * 4 + quarter;
#pragma unroll kUnroll
    for (int i = 0; i < 4; ++i) {
      const Block& w = weights.values;
      const int column = layout.row(i / 2 * 8 + quarter * 2 + i % 2);
      const float held_upper = i == 0 ? w[0][0] : i == 1 ? w[0][1] : i == 2 ? w[1][0] : w[1][1];
      const float held_lower = i == 0 ? w[0][2] : i == 1 ? w[0][3] : i == 2 ? w[1][2] : w[1][3];
      const float upper = __shfl_sync(0xffffffffu, held_upper, owner);
      const float lower = __shfl_sync(0xffffffffu, held_lower, owner);
#pragma unroll
      for (int d = 0; d < kTiles; ++d) {
        if (d >= tiles) break;
        const int offset = layout.offset(column, 2 * d + lane.column / 4);
        const float2 b = columns.as<float2>(offset + lane.column % 4 * 4)[0];
        sum[d][0] = fmaf(upper, b.x, sum[d][0]);
        sum[d][1] = fmaf(upper, b.y, sum[d][1]);
        sum[d][2] = fmaf(lower, b.x, sum[d][2]);
        sum[d][3] = fmaf(lower, b.y, sum[d][3]);
      }
    }
  }
}

template <int kTiles>
__device__ inline void accumulate(float (&first)[kTiles][4], const Weights<float>& first_weights,
                                  float (&second)[kTiles][4], const Weights<float>& second_weights,
                                  Shared<char> columns) {
  accumulate(first, first_weights, columns);
  accumulate(second, second_weights, columns);
}

__device__ inline void accumulate_rows(float (&sum)[4], const Weights<float>& weights) {
  const Block& w = weights.values;
  sum[0] += sum_of_row(w[0][0] + w[0][1] + w[1][0] + w[1][1]);
  sum[2] += sum_of_row(w[0][2] + w[0][3] + w[1][2] + w[1][3]);
}

}  // namespace vtfast::cuda
