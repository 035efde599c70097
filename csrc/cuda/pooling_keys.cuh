// Backward of pooling attention's keys and values. A warp's 16 meet all queries of their head, or a split's share.
#pragma once

#include "gradient_tile.cuh"
#include "launch_pooling.cuh"
#include "pooling_scores.cuh"
#include "tile_stores.cuh"

namespace vtfast::cuda {

template <class T, int D>
class PoolingKeys {
 public:
  using Tile = GradientTile<T, D, (D <= 96)>;
  static constexpr int kRowBytes = SharedRow<T, D>::kBytes;
  static constexpr int kBlocks = D <= 96 ? 2 : 1;  // of 16 queries, whose scores a warp holds at once

  __device__ explicit PoolingKeys(const PoolingKernelParams& p)
      : p_(p),
        at_(p),
        first_(at_.first + threadIdx.x / 32 * 16),
        first_query_(at_.split * p.plan.share),
        last_query_(min(first_query_ + p.plan.share, p.num_queries)),
        k_(threadIdx.x / 32 * 16 * kRowBytes),
        v_(k_ + p.layout.rows_bytes),
        places_(p.layout.relative_rows + threadIdx.x / 32 * 16 * p.layout.pitch) {}

  __device__ void run() {
    const int present = p_.num_keys - at_.first;
    load_rows<T, D>(at_.row<const T>(p_, p_.k, at_.first), p_.k.token_stride, present, p_.head_dim, p_.plan.rows(),
                    Shared<char>(0));
    load_rows<T, D>(at_.row<const T>(p_, p_.v, at_.first), p_.v.token_stride, present, p_.head_dim, p_.plan.rows(),
                    Shared<char>(p_.layout.rows_bytes));
    if (p_.plan.width > 0) {
      load_relative<T>(p_, p_.places, at_.first, present, p_.plan.rows(), Shared<char>(p_.layout.relative_rows));
    }
    ptx::cp_async_commit();
    Tile keys;
    const int chunks = (last_query_ - first_query_ + p_.plan.chunk - 1) / p_.plan.chunk;
    walk(
        chunks, p_.plan.stages, [&](int chunk) { load(chunk); },
        [&](int chunk) {
          if (first_ >= p_.num_keys) return;
          if (chunk == 0) keys.begin(k_, v_);
          sweep(keys, chunk);
        });
    if (first_ >= p_.num_keys) return;
    store(keys.d_first, p_.scale, 0, k_);
    store(keys.d_second, 1, 1, v_);
  }

 private:
  // Queries, gradients, relative scores and statistics of a chunk.
  __device__ void load(int chunk) const {
    const Columns columns(p_, chunk);
    const int first = first_query_ + chunk * p_.plan.chunk, present = last_query_ - first;
    load_rows<T, D>(at_.row<const T>(p_, p_.q, first), p_.q.token_stride, present, p_.head_dim, p_.plan.chunk,
                    columns.operand(0));
    load_rows<T, D>(at_.row<const T>(p_, p_.grad_out, first), p_.grad_out.token_stride, present, p_.head_dim,
                    p_.plan.chunk, columns.operand(1));
    const int64_t row = at_.pair * p_.num_queries + first;
    if (p_.plan.width > 0) load_relative<T>(p_, p_.relative, row, present, p_.plan.chunk, columns.relative());
    for (int i = threadIdx.x; i < 2 * p_.plan.chunk; i += blockDim.x) {
      const int which = i / p_.plan.chunk, query = i % p_.plan.chunk;
      const Shared<float> to = columns.statistic(which, p_.plan.chunk) + query;
      if (query < present) {
        ptx::cp_async_4(to.address(), (which == 0 ? p_.lse : p_.delta) + row + query);
      } else {
        to[0] = which == 0 ? INFINITY : 0;
      }
    }
  }

  __device__ void sweep(Tile& keys, int chunk) const {
    const Columns columns(p_, chunk);
    const Shared<float> lse = columns.statistic(0, p_.plan.chunk), delta = columns.statistic(1, p_.plan.chunk);
    const int present = min(p_.plan.chunk, last_query_ - first_query_ - chunk * p_.plan.chunk);
#pragma unroll 1
    for (int first = 0; first < present; first += 16 * kBlocks) {
      Block scores[kBlocks];
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        if (first + 16 * b >= present) break;
        multiply(scores[b], keys.first, columns.operand(0) + (first + 16 * b) * kRowBytes);
        scale_scores(scores[b], p_.score_scale);
      }
      finish_scores<T>(scores, p_, places_, columns.relative() + first * p_.layout.pitch, present - first);
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        const int at = first + 16 * b;
        if (at >= present) break;
        add_key_gradients(keys, scores[b], columns.operand(0) + at * kRowBytes, columns.operand(1) + at * kRowBytes,
                          lse + at, delta + at);
      }
    }
  }

  // The gradients of keys (0) or values (1), or a split's part of them.
  __device__ void store(const float (&tile)[D / 8][4], float factor, int which, Shared<char> scratch) const {
    if (p_.key_partials == nullptr) {
      const MutableTokenRows& to = which == 0 ? p_.d_k : p_.d_v;
      store_rows<T, D>(tile, {factor, factor}, p_.head_dim, scratch, [&](int row) -> T* {
        return first_ + row < p_.num_keys ? at_.row<T>(p_, to, first_ + row) : nullptr;
      });
      return;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_ + Lane().row + 8 * half;
      if (row >= p_.num_keys) continue;
      const int64_t place = ((at_.split * 2 + which) * int64_t{p_.pairs} + at_.pair) * p_.num_keys + row;
      store_partial<D>(tile, half, factor, p_.head_dim, p_.key_partials + place * p_.head_dim);
    }
  }

  const PoolingKernelParams& p_;
  const RowSet at_;
  const int first_;                     // key of the warp
  const int first_query_, last_query_;  // of the split
  const Shared<char> k_, v_, places_;
};

template <class T, int D>
__global__ void __launch_bounds__(32 * PoolingBounds::of(PoolingPass::kKeys, D, sizeof(T)).warps,
                                  PoolingBounds::of(PoolingPass::kKeys, D, sizeof(T)).blocks)
    pooling_keys_kernel(const __grid_constant__ PoolingKernelParams p) {
  PoolingKeys<T, D>(p).run();
}

inline constexpr int kSumKeys = 16;  // of a block
inline constexpr int kSumKeysThreads = 128;

// Adds up the splits' gradients of keys and values, in order.
template <class T>
__global__ void __launch_bounds__(kSumKeysThreads) sum_keys_kernel(const __grid_constant__ PoolingKernelParams p) {
  const int sets = (p.num_keys + kSumKeys - 1) / kSumKeys, pair = blockIdx.x / sets % p.pairs;
  const int which = blockIdx.x / sets / p.pairs, first = blockIdx.x % sets * kSumKeys;
  const HeadOfClip at(p, pair);
  const int64_t stride = int64_t{2} * p.pairs * p.num_keys * p.head_dim;
  for (int i = threadIdx.x; i < min(kSumKeys, p.num_keys - first) * p.head_dim; i += kSumKeysThreads) {
    const int key = first + i / p.head_dim, column = i % p.head_dim;
    const int64_t row = (int64_t{which} * p.pairs + pair) * p.num_keys + key;
    float sum = 0;
    for (int split = 0; split < p.plan.splits; ++split) {
      sum += p.key_partials[split * stride + row * p.head_dim + column];
    }
    at.row<T>(p, which == 0 ? p.d_k : p.d_v, key)[column] = from_float<T>(sum);
  }
}

template <class T>
void launch_pooling_keys(const PoolingKernelParams& params, void* stream) {
  launch_pooling(params, stream, [](auto dim) { return pooling_keys_kernel<T, decltype(dim)::value>; });
  if (params.plan.splits == 1) return;
  const int64_t sets = (params.num_keys + kSumKeys - 1) / kSumKeys;
  launch(sum_keys_kernel<T>, 2 * sets * params.pairs, kSumKeysThreads, 0, stream, params);
}

}  // namespace vtfast::cuda
