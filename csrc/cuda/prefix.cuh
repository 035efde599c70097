// The prefix attends, and is attended to, in many groups: what their blocks leave is put together here. A block works
// for one prefix token, head and clip.
#pragma once

#include "block_sum.cuh"
#include "copies.cuh"

namespace vtfast::cuda {

// Which prefix token, head and clip a block works for.
struct PrefixHead {
  int prefix = 0, head = 0, clip = 0;

  __device__ explicit PrefixHead(const KernelParams& p)
      : prefix(blockIdx.x % p.geometry.num_prefix),
        head(blockIdx.x / p.geometry.num_prefix % p.num_heads),
        clip(blockIdx.x / p.geometry.num_prefix / p.num_heads) {}

  __device__ int row(const KernelParams& p) const { return clip * p.clip_tokens + prefix; }

  // What a group of the clip left for it.
  __device__ int64_t of_group(const KernelParams& p, int64_t group) const {
    return prefix_place(p, int64_t{clip} * p.num_groups + group, head, prefix);
  }
};

// Results of the groups, put together: by the sums of their softmaxes, or as a mean.
template <class T>
__global__ void __launch_bounds__(kSumThreads, 1) merge_prefix_kernel(const __grid_constant__ KernelParams p) {
  const PrefixHead at(p);
  float* shared = reinterpret_cast<float*>(ptx::shared_memory());
  const int width = p.head_dim + 1, groups = p.num_groups;
  const auto partial = [&](int64_t group) { return p.prefix_partials + at.of_group(p, group) * width; };
  // A group without a key says infinity, as the backward wants it.
  const auto lse_of = [&](int64_t group) {
    const float lse = partial(group)[p.head_dim];
    return lse == INFINITY ? -INFINITY : lse;
  };
  float lse = 0;
  if (p.global_prefix()) {
    float largest = -INFINITY, sum = 0;
    for (int group = threadIdx.x; group < groups; group += blockDim.x) largest = fmaxf(largest, lse_of(group));
    largest = reduce(largest, shared, [](float a, float b) { return fmaxf(a, b); });
    for (int group = threadIdx.x; group < groups; group += blockDim.x) sum += expf(lse_of(group) - largest);
    sum = reduce(sum, shared, [](float a, float b) { return a + b; });
    lse = largest == -INFINITY ? INFINITY : largest + logf(sum);
    if (threadIdx.x == 0) p.prefix_lse[prefix_stat_index(p, at.row(p), 0, at.head)] = lse;
  } else {
    for (int group = threadIdx.x; group < groups; group += blockDim.x) {
      p.prefix_lse[prefix_stat_index(p, at.row(p), group, at.head)] = partial(group)[p.head_dim];
    }
  }
  T* out = static_cast<T*>(p.out) + int64_t{at.row(p)} * p.channels() + at.head * p.head_dim;
  sum_rows(
      groups, p.head_dim, shared,
      [&](int64_t group, int column) {
        const float weight = p.global_prefix() ? expf(lse_of(group) - lse) : p.prefix_share;
        return weight * partial(group)[column];
      },
      [&](int column, float sum) { out[column] = from_float<T>(sum); });
}

// What the backward of a prefix query needs before its groups: their share of its gradient, and, where one pass covers
// the clip, delta.
template <class T>
__global__ void __launch_bounds__(kSumThreads, 1) prepare_prefix_kernel(const __grid_constant__ KernelParams p) {
  const PrefixHead at(p);
  float* shared = reinterpret_cast<float*>(ptx::shared_memory());
  float* q = shared + kSumThreads;
  float* grad = q + p.head_dim;
  const int64_t channel = int64_t{at.head} * p.head_dim, row = at.row(p);
  const T* grad_out = static_cast<const T*>(p.grad_out) + row * p.channels() + channel;
  const int64_t prefix = int64_t{at.clip} * p.geometry.num_prefix + at.prefix;
  T* grad_prefix = static_cast<T*>(const_cast<void*>(p.grad_prefix)) + prefix * p.channels() + channel;
  const auto packed = [&](int64_t token, Operand operand) {
    return packed_row(p, static_cast<const T*>(p.qkv), token, operand, at.head);
  };
  for (int i = threadIdx.x; i < p.head_dim; i += blockDim.x) {
    grad[i] = to_float(grad_out[i]);
    grad_prefix[i] = from_float<T>(grad[i] * p.prefix_share);
    q[i] = to_float(packed(row, Operand::kQuery)[i]);
  }
  __syncthreads();
  if (!p.global_prefix()) return;

  const int64_t stat = prefix_stat_index(p, at.row(p), 0, at.head);
  float delta = 0;
  for (int token = threadIdx.x; token < p.clip_tokens; token += blockDim.x) {
    const int grid_token = token - p.geometry.num_prefix;
    const bool masked = grid_token >= 0 && p.key_mask != nullptr &&
                        !p.key_mask[int64_t{at.clip} * p.geometry.num_tokens() + grid_token];
    if (masked) continue;
    const int64_t key = int64_t{at.clip} * p.clip_tokens + token;
    const T* k = packed(key, Operand::kKey);
    const T* v = packed(key, Operand::kValue);
    float score = 0, d_weight = 0;
    for (int i = 0; i < p.head_dim; ++i) {
      score = fmaf(q[i], to_float(k[i]), score);
      d_weight = fmaf(grad[i], to_float(v[i]), d_weight);
    }
    delta += expf(score * p.scale - p.prefix_lse[stat]) * d_weight;
  }
  delta = reduce(delta, shared, [](float a, float b) { return a + b; });
  if (threadIdx.x == 0) p.prefix_delta[stat] = delta;
}

// The groups' shares of the gradient of a prefix token's q, k and v; zeros if no group knows the prefix.
template <class T>
__global__ void __launch_bounds__(kSumThreads, 1) sum_prefix_gradients_kernel(const __grid_constant__ KernelParams p) {
  const PrefixHead at(p);
  float* shared = reinterpret_cast<float*>(ptx::shared_memory());
  for (int part = 0; part < 3; ++part) {
    T* to = packed_row(p, static_cast<T*>(p.d_qkv), at.row(p), static_cast<Operand>(part), at.head);
    sum_rows(
        p.group_prefix > 0 ? int{p.num_groups} : 0, p.head_dim, shared,
        [&](int64_t group, int column) {
          return p.prefix_grad_partials[(at.of_group(p, group) * 3 + part) * p.head_dim + column];
        },
        [&](int column, float sum) { to[column] = from_float<T>(sum); });
  }
}

}  // namespace vtfast::cuda
