// Forward of pooling attention: a warp for 16 queries, which meet all keys of their head.
#pragma once

#include "launch_pooling.cuh"
#include "pooling_scores.cuh"
#include "query_tile.cuh"
#include "relative_scores.cuh"
#include "tile_stores.cuh"

namespace vtfast::cuda {

template <class T, int D>
class PoolingForward {
 public:
  __device__ explicit PoolingForward(const PoolingKernelParams& p)
      : p_(p),
        at_(p),
        first_(at_.first + threadIdx.x / 32 * 16),
        rows_(threadIdx.x / 32 * 16 * SharedRow<T, D>::kBytes),
        relative_(p.layout.relative_rows + threadIdx.x / 32 * 16 * p.layout.pitch) {}

  __device__ void run() {
    load_rows<T, D>(at_.row<const T>(p_, p_.q, at_.first), p_.q.token_stride, p_.num_queries - at_.first, p_.head_dim,
                    p_.plan.rows(), Shared<char>(0));
    ptx::cp_async_commit();
    if (p_.plan.width > 0) {
      find_relative_scores<T, D>(p_, first_, rows_, relative_, Shared<char>(p_.layout.columns));
    }
    QueryTile<T, D> queries;
    const auto load = [&](int chunk) { load_keys<T, D>(p_, at_, chunk, Columns(p_, chunk)); };
    walk((p_.num_keys + p_.plan.chunk - 1) / p_.plan.chunk, p_.plan.stages, load, [&](int chunk) {
      if (first_ >= p_.num_queries) return;
      if (chunk == 0) queries.begin(rows_);
      attend(queries, chunk);
    });
    if (first_ < p_.num_queries) finish(queries);
  }

 private:
  __device__ void attend(QueryTile<T, D>& queries, int chunk) const {
    const Columns columns(p_, chunk);
    const int present = min(p_.plan.chunk, p_.num_keys - chunk * p_.plan.chunk);
    queries.attend(
        columns.operand(0), columns.operand(1), (present + 15) / 16 * 16,
        [&](Block& scores, int) { scale_scores(scores, p_.score_scale); },
        [&](Block(&scores)[QueryTile<T, D>::kBlocks], int first) {
          finish_scores<T>(scores, p_, relative_, columns.relative() + first * p_.layout.pitch, present - first);
        });
  }

  __device__ void finish(QueryTile<T, D>& queries) const {
    const Lane lane;
    float factor[2];
    queries.finish(factor);
    bool residual[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_ + lane.row + 8 * half;
      if (row < p_.num_queries && lane.column == 0) p_.lse[at_.pair * p_.num_queries + row] = queries.lse(half);
      residual[half] = p_.has_residual(row);
    }
    scale_rows<D>(queries.out, factor);
    add_rows<T, D>(queries.out, residual, rows_);
    store_rows<T, D>(queries.out, {1, 1}, p_.head_dim, rows_, [&](int row) -> T* {
      return first_ + row < p_.num_queries ? at_.row<T>(p_, p_.out, first_ + row) : nullptr;
    });
  }

  const PoolingKernelParams& p_;
  const RowSet at_;
  const int first_;  // query of the warp
  const Shared<char> rows_, relative_;
};

template <class T, int D>
__global__ void __launch_bounds__(32 * PoolingBounds::of(PoolingPass::kForward, D, sizeof(T)).warps,
                                  PoolingBounds::of(PoolingPass::kForward, D, sizeof(T)).blocks)
    pooling_forward_kernel(const __grid_constant__ PoolingKernelParams p) {
  PoolingForward<T, D>(p).run();
}

template <class T>
void launch_pooling_forward(const PoolingKernelParams& params, void* stream) {
  launch_pooling(params, stream, [](auto dim) { return pooling_forward_kernel<T, decltype(dim)::value>; });
}

}  // namespace vtfast::cuda
