// Rows of tokens on their way from and to the packed tensors.
#pragma once

#include "element.cuh"
#include "entries.cuh"

namespace vtfast::cuda {

enum class Operand : int { kQuery, kKey, kValue, kGradOut };

// Row of `out` and `grad_out` that belongs to a token.
__device__ inline int64_t out_row(const KernelParams& p, int row) {
  return p.prefix_attends() ? row : row - int64_t{p.geometry.num_prefix} * (row / p.clip_tokens + 1);
}

// A head's part of a row of the packed tensor `base` of q, k and v.
template <class Pointer>
__device__ inline Pointer packed_row(const KernelParams& p, Pointer base, int64_t row, Operand operand, int head) {
  return base + (row * 3 + static_cast<int>(operand)) * p.channels() + head * p.head_dim;
}

// What an operand reads for an entry; null for zeros.
template <class T>
__device__ inline const T* source(const KernelParams& p, Operand operand, int row, int head) {
  if (operand != Operand::kGradOut) {
    if (row == kPadding)
      return p.pad_qkv == nullptr ? nullptr : packed_row(p, static_cast<const T*>(p.pad_qkv), 0, operand, head);
    return is_token(row) ? packed_row(p, static_cast<const T*>(p.qkv), row, operand, head) : nullptr;
  }
  if (!is_token(row)) return nullptr;
  const int64_t offset = head * p.head_dim;
  if (!is_prefix(p, row)) return static_cast<const T*>(p.grad_out) + out_row(p, row) * p.channels() + offset;
  if (!p.prefix_attends()) return nullptr;
  const int64_t prefix = int64_t{row / p.clip_tokens} * p.geometry.num_prefix + row % p.clip_tokens;
  return static_cast<const T*>(p.grad_prefix) + prefix * p.channels() + offset;
}

// All threads of the block start copying `count` entries' rows of an operand.
template <class T, int D>
__device__ inline void load_rows(const KernelParams& p, Operand operand, int head, Shared<int> rows, int count,
                                 Shared<char> shared) {
  using Row = SharedRow<T, D>;
#pragma unroll 1
  for (int i = threadIdx.x; i < count * Row::kVectors; i += blockDim.x) {
    const int row = i / Row::kVectors, vector = i % Row::kVectors;
    const T* from = source<T>(p, operand, rows[row], head);
    const bool exists = from != nullptr && vector * Row::kPerVector < p.head_dim;
    ptx::cp_async_16((shared + Row::offset(row, vector)).address(), exists ? from + vector * Row::kPerVector : p.qkv,
                     exists);
  }
}

// Place of a query's statistics in [B, heads, N], or of a prefix query's, in `group` of its clip, in
// [B, passes, heads, P].
__device__ inline int64_t stat_index(const KernelParams& p, int row, int head) {
  const int clip = row / p.clip_tokens, token = row % p.clip_tokens - p.geometry.num_prefix;
  return (int64_t{clip} * p.num_heads + head) * p.geometry.num_tokens() + token;
}

__device__ inline int64_t prefix_stat_index(const KernelParams& p, int row, int group, int head) {
  const int clip = row / p.clip_tokens, pass = p.global_prefix() ? 0 : group;
  const int64_t passes = int64_t{clip} * p.num_passes() + pass;
  return (passes * p.num_heads + head) * p.geometry.num_prefix + row % p.clip_tokens;
}

// Group among all clips that an entry of a unit belongs to.
__device__ inline int group_of_entry(const KernelParams& p, int unit, int entry) {
  return unit * p.plan.groups_per_unit + entry / p.entries;
}

// What groups leave for a prefix token stands in [B * G, heads, P]: the place of one group's.
__device__ inline int64_t prefix_place(const KernelParams& p, int64_t group, int head, int prefix) {
  return (group * p.num_heads + head) * p.geometry.num_prefix + prefix;
}

// The statistic of the query at an entry, or null if nothing is a query there.
__device__ inline float* statistic(const KernelParams& p, float* of_tokens, float* of_prefix, int unit, int entry,
                                   int row, int head) {
  if (!is_token(row)) return nullptr;
  if (!is_prefix(p, row)) return of_tokens + stat_index(p, row, head);
  if (!p.prefix_attends()) return nullptr;
  const int group = group_of_entry(p, unit, entry) % p.num_groups;
  return of_prefix + prefix_stat_index(p, row, group, head);
}

// The warp writes a tile of 16 rows times `factor`, through `scratch`, 16 rows of shared memory that are its own;
// `destination(row)` is where, or null.
template <class T, int D, class Destination>
__device__ inline void store_rows(const float (&tile)[D / 8][4], const float (&factor)[2], int head_dim,
                                  Shared<char> scratch, const Destination& destination) {
  using Row = SharedRow<T, D>;
  const Lane lane;
  __syncwarp();
#pragma unroll
  for (int d = 0; d < D / 8; ++d) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float first = tile[d][2 * half] * factor[half], second = tile[d][2 * half + 1] * factor[half];
      const int row = lane.row + 8 * half;
      if constexpr (sizeof(T) == 4) {
        const int offset = Row::offset(row, 2 * d + lane.column / 4) + lane.column % 4 * 4;
        scratch.as<float2>(offset)[0] = make_float2(first, second);
      } else {
        scratch.as<uint32_t>(Row::offset(row, d) + lane.column * 2)[0] = T::pack(first, second);
      }
    }
  }
  __syncwarp();
#pragma unroll 1
  for (int i = lane.index; i < 16 * Row::kVectors; i += 32) {
    const int row = i / Row::kVectors, vector = i % Row::kVectors;
    T* to = destination(row);
    if (to != nullptr && vector * Row::kPerVector < head_dim) {
      *reinterpret_cast<uint4*>(to + vector * Row::kPerVector) = scratch.as<uint4>(Row::offset(row, vector))[0];
    }
  }
  __syncwarp();
}

// A lane's elements of a row of a tile, as floats.
template <int D>
__device__ inline void store_partial(const float (&tile)[D / 8][4], int half, float factor, int head_dim, float* to) {
  const Lane lane;
#pragma unroll
  for (int d = 0; d < D / 8; ++d) {
    const int column = 8 * d + lane.column;
    if (column < head_dim) {
      to[column] = tile[d][2 * half] * factor;
      to[column + 1] = tile[d][2 * half + 1] * factor;
    }
  }
}

}  // namespace vtfast::cuda
