// Forward: out = softmax(scale q k^T + bias) v, a warp for 16 queries.
#pragma once

#include "pipeline.cuh"
#include "query_tile.cuh"
#include "scores.cuh"
#include "tile_stores.cuh"

namespace vtfast::cuda {

template <class T, int D, bool kWhole>
class Forward {
 public:
  __device__ explicit Forward(const KernelParams& p)
      : p_(p), pipeline_(p), table_(p, pipeline_.head, Shared<float>(p.layout.table)) {}

  __device__ void run() {
    QueryTile<T, D> queries;
    pipeline_.run([&](const Step& step) {
      for (int row = threadIdx.x / 32 * 16; row < p_.plan.rows; row += p_.plan.warps * 16) {
        const Tile tile = Tile::of<kWhole>(p_, step, row);
        if (step.is_first()) queries.begin(pipeline_.rows(step, 0) + row * SharedRow<T, D>::kBytes);
        attend(step, tile, queries);
        if (pipeline_.is_last(step)) finish(step, tile, queries);
      }
    });
  }

 private:
  __device__ void attend(const Step& step, const Tile& tile, QueryTile<T, D>& queries) {
    const LaneRows<false> rows(Entries(pipeline_.row_entries(step), tile.row), table_);
    const Entries keys(pipeline_.column_entries(step), tile.unit_row);
    const int offset = tile.unit_row * SharedRow<T, D>::kBytes;
    queries.attend(pipeline_.columns(step, 0) + offset, pipeline_.columns(step, 1) + offset, tile.count,
                   [&](Block& scores, int at) {
                     finish_scores(scores, p_.score_scale, table_, rows, Entries(keys, at),
                                   at + 16 > tile.careful_from);
                   });
  }

  __device__ void finish(const Step& step, const Tile& tile, QueryTile<T, D>& queries) {
    const Lane lane;
    const Shared<int> rows = pipeline_.row_entries(step).row + tile.row;
    float factor[2];
    queries.finish(factor);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = lane.row + 8 * half, row = rows[at];
      if (!is_token(row)) continue;
      if (!is_prefix(p_, row)) {
        if (lane.column == 0) p_.lse[stat_index(p_, row, pipeline_.head)] = queries.lse(half);
      } else if (p_.prefix_attends()) {
        float* partial = prefix_partial(row, group_of_entry(p_, tile.unit, tile.entry + at));
        store_partial<D>(queries.out, half, factor[half], p_.head_dim, partial);
        if (lane.column == 0) partial[p_.head_dim] = queries.lse(half);
      }
    }
    const Shared<char> scratch = pipeline_.rows(step, 0) + tile.row * SharedRow<T, D>::kBytes;
    store_rows<T, D>(queries.out, factor, p_.head_dim, scratch, [&](int at) -> T* {
      const int row = rows[at];
      if (!is_token(row) || is_prefix(p_, row)) return nullptr;
      return static_cast<T*>(p_.out) + out_row(p_, row) * p_.channels() + pipeline_.head * p_.head_dim;
    });
  }

  __device__ float* prefix_partial(int token, int group) const {
    return p_.prefix_partials + prefix_place(p_, group, pipeline_.head, token % p_.clip_tokens) * (p_.head_dim + 1);
  }

  const KernelParams& p_;
  const Pipeline<T, D, Pass::kForward, kWhole, true> pipeline_;
  const BiasTable table_;
};

template <class T, int D, bool kWhole>
__global__ void __launch_bounds__(32 * LaunchBounds::of(Pass::kForward, D, sizeof(T)).warps,
                                  LaunchBounds::of(Pass::kForward, D, sizeof(T)).blocks)
    forward_kernel(const __grid_constant__ KernelParams p) {
  Forward<T, D, kWhole>(p).run();
}

}  // namespace vtfast::cuda
