// 16 rows and the gradients that gather there (Dao et al., "FlashAttention-2", 2023, algorithm 2).
#pragma once

#include "logarithms.h"
#include "product.cuh"

namespace vtfast::cuda {

// 16 rows of a warp: two operands, and two sums that are the gradients of the first and the second.
template <class T, int D, bool kHold = (D <= 64)>
struct GradientTile {
  Rows<T, D, kHold> first, second;
  float d_first[D / 8][4], d_second[D / 8][4];

  __device__ void begin(Shared<char> first_rows, Shared<char> second_rows) {
    first.load(first_rows);
    second.load(second_rows);
#pragma unroll
    for (int d = 0; d < D / 8; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) d_first[d][i] = d_second[d][i] = 0;
    }
  }
};

// Adds what 16 queries give to the keys and values of a tile. The queries' scores times log2(e) go in, the gradients of
// the scores come out.
template <class T, int D, bool kHold>
__device__ inline void add_key_gradients(GradientTile<T, D, kHold>& rows, Block& scores, Shared<char> q,
                                         Shared<char> grad_out, Shared<float> lse, Shared<float> delta) {
  const Lane lane;
  Block d_weights;
  multiply(d_weights, rows.second, grad_out);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int column = 8 * (i / 4) + lane.column + i % 2;
    scores[i / 4][i % 4] = ptx::ex2(scores[i / 4][i % 4] - lse[column] * kLog2e);
    d_weights[i / 4][i % 4] -= delta[column];
  }
  accumulate(rows.d_second, Weights<T>(scores), grad_out);
#pragma unroll
  for (int i = 0; i < 8; ++i) scores[i / 4][i % 4] *= d_weights[i / 4][i % 4];
  accumulate(rows.d_first, Weights<T>(scores), q);
}

}  // namespace vtfast::cuda
