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

}  // namespace vtfast::cuda
