// From products to scores: scale, relative position bias, and minus infinity where a query does not see a key.
#pragma once

#include "entries.cuh"
#include "product.cuh"

namespace vtfast::cuda {

// The bias table of one head, times log2(e).
struct BiasTable {
  const float* values;  // [R], or null
  int center;

  // In shared memory if the plan wants it there: all threads of the block copy it, and wait for it at their next
  // barrier.
  __device__ BiasTable(const KernelParams& p, int head, float* shared) : values(nullptr), center(p.bias_center) {
    if (p.table == nullptr) return;
    values = p.table + int64_t{head} * p.table_size;
    if (!p.plan.table_resident) return;
    for (int i = threadIdx.x; i < p.table_size; i += blockDim.x) shared[i] = values[i];
    values = shared;
  }
};

// What the two rows of a lane, `Lane::row` and the eighth below, bring to a score.
struct LaneRows {
  int place[2];
  unsigned bits[2];

  __device__ LaneRows(const Entries& tile, const unsigned* bits_of_tile) {
    const Lane lane;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      place[half] = tile.place[lane.row + 8 * half];
      bits[half] = bits_of_tile[lane.row + 8 * half];
    }
  }
};

// Turns products with 16 columns into scores times log2(e). `careful` where some column is absent, out of sight of some
// row, or without a place in the table; `kRowsAreKeys` says which side of the bias is which.
template <bool kRowsAreKeys>
__device__ inline void finish_scores(Block& scores, float scale, const BiasTable& table, const LaneRows& rows,
                                     const int* places, const unsigned* bits, bool careful) {
  const Lane lane;
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int column = 8 * n + lane.column + c;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float& score = scores[n][c + 2 * half];
        float bias = 0;
        if (table.values != nullptr) {
          const bool placed = !careful || (places[column] | rows.place[half]) >= 0;
          const int row_place = max(rows.place[half], 0);
          const int distance = kRowsAreKeys ? places[column] - row_place : row_place - places[column];
          if (placed) bias = table.values[distance + table.center];
        }
        score = fmaf(score, scale, bias);
        if (careful && (rows.bits[half] & bits[column]) == 0) score = -INFINITY;
      }
    }
  }
}

}  // namespace vtfast::cuda
