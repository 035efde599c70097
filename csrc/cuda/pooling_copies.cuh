// Tokens on their way to a block's shared memory, and the walk over chunks of them.
#pragma once

#include "element.cuh"
#include "pooling_params.h"

namespace vtfast::cuda {

// A head of a clip.
struct HeadOfClip {
  int64_t pair;  // among those of all clips
  int64_t clip;
  int head;

  __device__ HeadOfClip(const PoolingKernelParams& p, int pair)
      : pair(pair), clip(pair / p.num_heads), head(pair % p.num_heads) {}

  // Its part of a token.
  template <class T, class Tokens>
  __device__ T* row(const PoolingKernelParams& p, const Tokens& tokens, int token) const {
    return static_cast<T*>(tokens.data) + clip * tokens.batch_stride + token * tokens.token_stride + head * p.head_dim;
  }
};

// Where a block stands: blocks of one head are neighbours, those of one row set most of all.
struct RowSet : HeadOfClip {
  int split;
  int first;  // row

  __device__ explicit RowSet(const PoolingKernelParams& p)
      : HeadOfClip(p, blockIdx.x / (p.plan.splits * p.plan.row_sets)),
        split(blockIdx.x % p.plan.splits),
        first(blockIdx.x / p.plan.splits % p.plan.row_sets * p.plan.rows()) {}
};

// All threads of the block start copying `count` rows of D elements, of which `present` exist and have `width`
// elements; what does not exist is zero.
template <class T, int D>
__device__ inline void load_rows(const T* from, int64_t stride, int present, int width, int count, Shared<char> to) {
  using Row = SharedRow<T, D>;
#pragma unroll 1
  for (int i = threadIdx.x; i < count * Row::kVectors; i += blockDim.x) {
    const int row = i / Row::kVectors, element = i % Row::kVectors * Row::kPerVector;
    const bool exists = row < present && element < width;
    ptx::cp_async_16((to + Row::offset(row, i % Row::kVectors)).address(),
                     exists ? from + row * stride + element : from, exists);
  }
}

// The same for rows of relative scores or places, which are neighbours in memory.
template <class T>
__device__ inline void load_relative(const PoolingKernelParams& p, const void* from, int64_t first, int present,
                                     int count, Shared<char> to) {
  constexpr int kLanes = 4;  // that copy a row
  const int bytes = p.plan.width * static_cast<int>(sizeof(T));
  const char* source = static_cast<const char*>(from) + first * bytes;
#pragma unroll 1
  for (int row = threadIdx.x / kLanes; row < count; row += blockDim.x / kLanes) {
    for (int byte = threadIdx.x % kLanes * 16; byte < bytes; byte += kLanes * 16) {
      const bool exists = row < present;
      ptx::cp_async_16((to + row * p.layout.pitch + byte).address(),
                       exists ? source + int64_t{row} * bytes + byte : source, exists);
    }
  }
}

// Calls `compute(step)` for every step in order, with what `load(step)` copies in place; all threads of the block
// together. With two stages, one step is loaded while another is computed.
template <class Load, class Compute>
__device__ inline void walk(int steps, int stages, const Load& load, const Compute& compute) {
  const int lead = stages - 1;
  for (int step = -lead; step < steps; ++step) {
    if (lead > 0 && step >= 0) ptx::cp_async_wait<0>();
    __syncthreads();
    if (step + lead < steps) {
      load(step + lead);
      ptx::cp_async_commit();
    }
    if (lead == 0) {
      ptx::cp_async_wait<0>();
      __syncthreads();
    }
    if (step >= 0) compute(step);
  }
}

// The column operands of a step.
class Columns {
 public:
  __device__ Columns(const PoolingKernelParams& p, int step)
      : layout_(p.layout), first_(p.layout.columns + (step & (p.plan.stages - 1)) * p.layout.stage_bytes) {}

  __device__ Shared<char> operand(int i) const { return Shared<char>(first_ + i * layout_.columns_bytes); }
  __device__ Shared<char> relative() const { return Shared<char>(first_ + layout_.relative_columns); }

  // Logsumexp (0) or delta (1) of queries.
  __device__ Shared<float> statistic(int i, int chunk) const {
    return Shared<float>(first_ + layout_.statistics + i * chunk * 4);
  }

 private:
  const PoolingLayout& layout_;
  const int first_;
};

// Keys, values and places of a chunk, for all threads of the block.
template <class T, int D>
__device__ inline void load_keys(const PoolingKernelParams& p, const HeadOfClip& at, int chunk,
                                 const Columns& columns) {
  const int first = chunk * p.plan.chunk, present = min(p.plan.chunk, p.num_keys - first);
  load_rows<T, D>(at.row<const T>(p, p.k, first), p.k.token_stride, present, p.head_dim, p.plan.chunk,
                  columns.operand(0));
  load_rows<T, D>(at.row<const T>(p, p.v, first), p.v.token_stride, present, p.head_dim, p.plan.chunk,
                  columns.operand(1));
  if (p.plan.width > 0) load_relative<T>(p, p.places, first, present, p.plan.chunk, columns.relative());
}

}  // namespace vtfast::cuda
