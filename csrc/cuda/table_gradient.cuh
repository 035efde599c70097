// Gradient of the bias table: every warp adds up a copy of its own, in a fixed order and without atomics.
#pragma once

#include "pipeline.cuh"
#include "product.cuh"

namespace vtfast::cuda {

// A head's table of sums for each warp of a block, in shared memory or, if there is no room, in the workspace.
class WarpTables {
 public:
  __device__ WarpTables(const KernelParams& p, int64_t block, Shared<float> shared)
      : resident_(p.plan.grads_resident), size_(p.table_size), shared_(shared) {
    if (!resident_) global_ = p.table_scratch + block * p.plan.warps * size_;
  }

  __device__ float get(int warp, int i) const {
    return resident_ ? shared_[warp * size_ + i] : global_[int64_t{warp} * size_ + i];
  }

  __device__ void set(int warp, int i, float value) const {
    if (resident_) {
      shared_[warp * size_ + i] = value;
    } else {
      global_[int64_t{warp} * size_ + i] = value;
    }
  }

 private:
  const bool resident_;
  const int size_;
  const Shared<float> shared_;
  float* global_ = nullptr;
};

class TableGradient {
 public:
  __device__ TableGradient(const KernelParams& p, int worker, int head, Shared<float> shared, Shared<float> scratch)
      : wanted_(p.table_partials != nullptr),
        size_(p.table_size),
        center_(p.bias_center),
        scratch_(scratch),
        tables_(p, int64_t{worker} * p.num_heads + head, shared) {
    if (!wanted_) return;
    total_ = p.table_partials + (int64_t{worker} * p.num_heads + head) * size_;
    for (int i = threadIdx.x % 32; i < size_; i += 32) tables_.set(threadIdx.x / 32, i, 0);
    __syncwarp();
  }

  // Adds the gradient of 16 keys' scores with the `count`, at most 16 * kBlocks, queries at `queries`. Row by row: one
  // key has another row of the table for every query of its group, so no two lanes meet.
  template <int kBlocks>
  __device__ void add(const Block (&d_scores)[kBlocks], const Entries& keys, const Entries& queries, int count) const {
    if (!wanted_) return;
    const Lane lane;
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int to = at(lane.row + i % 2 * 8, 16 * b + 8 * (i / 2) + lane.column);
        (scratch_ + to).as<float2>()[0] = make_float2(d_scores[b][i / 2][i % 2 * 2], d_scores[b][i / 2][i % 2 * 2 + 1]);
      }
    }
    __syncwarp();
    const bool exists = lane.index < count && lane.index < 16 * kBlocks;
    const int place = exists ? queries.place[lane.index] : -1;
    const unsigned bits = exists ? queries.query_bits[lane.index] : 0;
    for (int row = 0; row < 16; ++row) {
      const int key_place = keys.place[row];
      if ((place | key_place) >= 0 && (bits & keys.key_bits[row]) != 0) {
        const int i = (place - key_place + center_) / 4, warp = threadIdx.x / 32;
        tables_.set(warp, i, tables_.get(warp, i) + scratch_[at(row, lane.index)]);
      }
      __syncwarp();
    }
  }

  // After a barrier: the sums of all warps, added in order.
  __device__ void finish(int warps) const {
    if (!wanted_) return;
    for (int i = threadIdx.x; i < size_; i += blockDim.x) {
      float sum = 0;
      for (int warp = 0; warp < warps; ++warp) sum += tables_.get(warp, i);
      total_[i] = sum;
    }
  }

 private:
  __device__ static int at(int row, int column) { return row * SharedLayout::kTransposeStride + column; }

  const bool wanted_;
  const int size_, center_;
  const Shared<float> scratch_;
  const WarpTables tables_;
  float* total_ = nullptr;  // [R]
};

}  // namespace vtfast::cuda
