// From products to scores: scale, relative position bias, and minus infinity where a query does not see a key.
#pragma once

#include "entries.cuh"
#include "product.cuh"

namespace vtfast::cuda {

// The bias table of one head, times log2(e).
class BiasTable {
 public:
  // In shared memory if the plan wants it there: all threads of the block copy it, and wait for it at their next
  // barrier.
  __device__ BiasTable(const KernelParams& p, int head, Shared<float> shared)
      : exists_(p.table != nullptr), resident_(p.plan.table_resident), center_(p.bias_center), shared_(shared) {
    if (!exists_) return;
    global_ = p.table + int64_t{head} * p.table_size;
    if (!resident_) return;
    for (int i = threadIdx.x; i < p.table_size; i += blockDim.x) shared_[i] = global_[i];
  }

  __device__ bool exists() const { return exists_; }

  __device__ bool resident() const { return resident_; }

  // Where the bias of an entry with itself stands, and the bias that stands somewhere.
  __device__ int origin() const { return resident_ ? shared_.offset() + center_ : center_; }
  template <bool kResident>
  __device__ float at(int byte) const {
    return kResident ? Shared<float>(byte)[0] : global_[byte / 4];
  }

 private:
  const bool exists_, resident_;
  const int center_;
  const Shared<float> shared_;
  const float* global_ = nullptr;
};

// What the two rows of a lane, `Lane::row` and the eighth below, bring to a score; rows are queries or keys.
template <bool kAreKeys>
class LaneRows {
 public:
  static constexpr int kSign = kAreKeys ? -1 : 1;

  int origin[2];  // byte of the bias with a column whose place is 0

  __device__ LaneRows(const Entries& tile, const BiasTable& table) : mine_(tile, Lane().row) {
#pragma unroll
    for (int half = 0; half < 2; ++half) origin[half] = table.origin() + kSign * max(mine_.place[8 * half], 0);
  }

  // Read anew where they are needed, which is seldom: registers are scarce.
  __device__ bool placed(int half) const { return mine_.place[8 * half] >= 0; }
  __device__ unsigned bits(int half) const { return (kAreKeys ? mine_.key_bits : mine_.query_bits)[8 * half]; }

 private:
  const Entries mine_;
};

// Adds the bias of 16 columns; nothing to a row or column without a place.
template <bool kAreKeys, bool kCareful, bool kResident>
__device__ inline void scale_and_add_bias(Block& scores, float scale, const BiasTable& table,
                                          const LaneRows<kAreKeys>& rows, Shared<int> places) {
  const Lane lane;
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    const uint2 pair = places.as<uint2>()[4 * n + lane.column / 2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int column = static_cast<int>(i % 2 == 0 ? pair.x : pair.y);
      const int distance = LaneRows<kAreKeys>::kSign * (kCareful ? max(column, 0) : column);
      const float bias = table.at<kResident>(rows.origin[i / 2] - distance);
      const bool placed = !kCareful || (rows.placed(i / 2) && column >= 0);
      scores[n][i] = fmaf(scores[n][i], scale, placed ? bias : 0);
    }
  }
}

template <bool kAreKeys>
__device__ inline void hide(Block& scores, const LaneRows<kAreKeys>& rows, Shared<unsigned> bits) {
  const Lane lane;
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    const uint2 pair = bits.as<uint2>()[4 * n + lane.column / 2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((rows.bits(i / 2) & (i % 2 == 0 ? pair.x : pair.y)) == 0) scores[n][i] = -INFINITY;
    }
  }
}

template <bool kAreKeys, bool kCareful>
__device__ inline void finish_scores(Block& scores, float scale, const BiasTable& table, const LaneRows<kAreKeys>& rows,
                                     const Entries& columns) {
  if (!table.exists()) {
#pragma unroll
    for (int i = 0; i < 8; ++i) scores[i / 4][i % 4] *= scale;
  } else if (table.resident()) {
    scale_and_add_bias<kAreKeys, kCareful, true>(scores, scale, table, rows, columns.place);
  } else {
    scale_and_add_bias<kAreKeys, kCareful, false>(scores, scale, table, rows, columns.place);
  }
  if constexpr (kCareful) hide(scores, rows, kAreKeys ? columns.query_bits : columns.key_bits);
}

// Turns products with 16 columns into scores times log2(e). `careful` where some column is absent, out of sight of some
// row, or without a place in the table.
template <bool kAreKeys>
__device__ inline void finish_scores(Block& scores, float scale, const BiasTable& table, const LaneRows<kAreKeys>& rows,
                                     const Entries& columns, bool careful) {
  if (careful) {
    finish_scores<kAreKeys, true>(scores, scale, table, rows, columns);
  } else {
    finish_scores<kAreKeys, false>(scores, scale, table, rows, columns);
  }
}

}  // namespace vtfast::cuda
