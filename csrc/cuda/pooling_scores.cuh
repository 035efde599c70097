// From products to scores: scale, relative positions, and minus infinity where there is no key.
#pragma once

#include "pooling_copies.cuh"
#include "relative_product.cuh"

namespace vtfast::cuda {

__device__ inline void scale_scores(Block& scores, float scale) {
#pragma unroll
  for (int i = 0; i < 8; ++i) scores[i / 4][i % 4] *= scale;
}

// Adds the relative scores of queries and keys, either of which are the rows, and hides the columns from `present` on.
// The products of the columns before that, rounded up to a multiple of 16, were scaled.
template <class T, int kBlocks>
__device__ inline void finish_scores(Block (&scores)[kBlocks], const PoolingKernelParams& p, Shared<char> rows,
                                     Shared<char> columns, int present) {
  if (p.plan.width > 0) {
    const int count = (present + 15) / 16 * 16;
    add_relative<T>(scores, rows, columns, RelativeRows{p.layout.pitch}, p.plan.width, count);
  }
  if (present >= 16 * kBlocks) return;
  const Lane lane;
#pragma unroll
  for (int i = 0; i < 8 * kBlocks; ++i) {
    const int column = 8 * (i / 4) + lane.column + i % 2;
    if (column >= present) scores[i / 8][i / 4 % 2][i % 4] = -INFINITY;
  }
}

}  // namespace vtfast::cuda
