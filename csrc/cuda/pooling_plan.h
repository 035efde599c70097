// How the kernels of pooling attention are laid out on a GPU for given sizes: pure host functions.
#pragma once

#include "../pooling_attention.h"
#include "launch_plan.h"

namespace vtfast::cuda {

// The backward of queries finds their gradients and delta, which that of keys and values needs.
enum class PoolingPass : int { kForward, kQueries, kKeys };

// A block works for one head of one clip. It holds `16 * warps` rows, queries or keys, and walks over the others, the
// columns, chunk by chunk.
struct PoolingPlan {
  int padded_dim;  // head_dim, rounded up to one that kernels are compiled for
  int width;       // relative scores of a query, rounded up to a multiple of 16; 0 without tables
  int warps;       // of a block
  int chunk;       // columns that are resident in shared memory at once, a multiple of 16
  int stages;      // 1, or 2 to load one chunk while computing on another
  int row_sets;    // blocks that share the rows of a head
  int splits;      // blocks that share the columns of a row set; the number follows from sizes alone
  int share;       // columns of a split, a multiple of 16
  int shared_bytes;

  VTFAST_HOST_DEVICE int rows() const { return 16 * warps; }
};

// Launch bounds of a kernel: they settle how many registers a thread may have.
struct PoolingBounds {
  int warps;   // of a block, at most
  int blocks;  // of that size that a multiprocessor holds at least

  VTFAST_HOST_DEVICE static constexpr PoolingBounds of(PoolingPass pass, int padded_dim, int element_size) {
    const int row_bytes = padded_dim * element_size;
    if (pass != PoolingPass::kForward || row_bytes > 384) return {8, 1};
    return row_bytes <= 128 ? PoolingBounds{8, 2} : PoolingBounds{6, 2};
  }
};

// Positions of keys along the axes that have tables, all axes together.
int relative_scores(const PoolingAttentionParams& params);

// Whether the kernels take these sizes: a reason for the user if not, null if they do.
const char* unsupported(const PoolingAttentionParams& params);

PoolingPlan make_pooling_plan(const PoolingAttentionParams& params, const Device& device, PoolingPass pass);

}  // namespace vtfast::cuda
