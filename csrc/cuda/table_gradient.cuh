// Gradient of the bias table: every warp adds up a copy of its own, in a fixed order and without atomics.
#pragma once

#include "pipeline.cuh"
#include "product.cuh"

namespace vtfast::cuda {

class TableGradient {
 public:
  // Zeroes this warp's copy, in shared memory if the plan wants it there.
  __device__ TableGradient(const KernelParams& p, int worker, int head, float* shared, float* scratch)
      : size_(p.table_size), center_(p.bias_center), scratch_(scratch) {
    if (p.table_partials == nullptr) return;
    const int warp = threadIdx.x / 32;
    copies_ = p.plan.grads_resident ? shared
                                    : p.table_scratch + (int64_t{worker} * p.num_heads + head) * p.plan.warps * size_;
    mine_ = copies_ + int64_t{warp} * size_;
    total_ = p.table_partials + (int64_t{worker} * p.num_heads + head) * size_;
    for (int i = threadIdx.x % 32; i < size_; i += 32) mine_[i] = 0;
    __syncwarp();
  }

  // Adds the gradient of 16 keys' scores with the `count`, at most 32, queries at `queries`. Row by row: one key has
  // another row of the table for every query of its group, so no two lanes meet.
  __device__ void add(const Block (&d_scores)[2], const Entries& keys, const Entries& queries, int count) {
    if (copies_ == nullptr) return;
    const Lane lane;
#pragma unroll
    for (int b = 0; b < 2; ++b) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float* to = tile(lane.row + i % 2 * 8) + 16 * b + 8 * (i / 2) + lane.column;
        *reinterpret_cast<float2*>(to) = make_float2(d_scores[b][i / 2][i % 2 * 2], d_scores[b][i / 2][i % 2 * 2 + 1]);
      }
    }
    __syncwarp();
    const bool exists = lane.index < count;
    const int place = exists ? queries.place[lane.index] : -1;
    const unsigned bits = exists ? queries.query_bits[lane.index] : 0;
    for (int row = 0; row < 16; ++row) {
      const int key_place = keys.place[row];
      if ((place | key_place) >= 0 && (bits & keys.key_bits[row]) != 0) {
        mine_[place - key_place + center_] += tile(row)[lane.index];
      }
      __syncwarp();
    }
  }

  // After a barrier: the copies of all warps, added in order.
  __device__ void finish(int warps) const {
    if (copies_ == nullptr) return;
    for (int i = threadIdx.x; i < size_; i += blockDim.x) {
      float sum = 0;
      for (int warp = 0; warp < warps; ++warp) sum += copies_[int64_t{warp} * size_ + i];
      total_[i] = sum;
    }
  }

 private:
  __device__ float* tile(int row) const { return scratch_ + row * SharedLayout::kTransposeStride; }

  const int size_, center_;
  float* const scratch_;
  float* copies_ = nullptr;  // [warps, R]
  float* mine_ = nullptr;    // [R]
  float* total_ = nullptr;   // [R]
};

}  // namespace vtfast::cuda
