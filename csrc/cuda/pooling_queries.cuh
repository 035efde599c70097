// Backward of pooling attention's queries. A warp's 16 meet all keys of their head, first for delta, the sum of p dp
// over the keys, then for the gradients of q and of the relative scores.
#pragma once

#include "launch_pooling.cuh"
#include "pooling_scores.cuh"
#include "relative_scores.cuh"
#include "tile_stores.cuh"

namespace vtfast::cuda {

// 16 queries of a warp and what they have gathered so far.
template <class T, int D>
struct QueryGradients {
  static constexpr int kSlice = 64;  // relative scores whose gradients are gathered in one sweep over the keys
  static constexpr bool kHold = D <= 96;

  Rows<T, D, kHold> q, grad_out;
  float d_q[D / 8][4];
  float d_relative[kSlice / 8][4];
  float delta[2];
  float origin[2];  // logsumexp of base 2

  __device__ void begin(Shared<char> q_rows, Shared<char> grad_rows) {
    q.load(q_rows);
    grad_out.load(grad_rows);
#pragma unroll
    for (int d = 0; d < D / 8; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) d_q[d][i] = 0;
    }
    delta[0] = delta[1] = 0;
    begin_slice();
  }

  __device__ void begin_slice() {
#pragma unroll
    for (int d = 0; d < kSlice / 8; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) d_relative[d][i] = 0;
    }
  }
};

template <class T, int D>
class PoolingQueries {
 public:
  using Gradients = QueryGradients<T, D>;
  static constexpr int kRowBytes = SharedRow<T, D>::kBytes;
  static constexpr int kBlocks = D <= 96 ? 2 : 1;  // of 16 keys, whose scores a warp holds at once

  __device__ explicit PoolingQueries(const PoolingKernelParams& p)
      : p_(p),
        at_(p),
        first_(at_.first + threadIdx.x / 32 * 16),
        q_(threadIdx.x / 32 * 16 * kRowBytes),
        grad_out_(q_ + p.layout.rows_bytes),
        relative_(p.layout.relative_rows + threadIdx.x / 32 * 16 * p.layout.pitch),
        chunks_((p.num_keys + p.plan.chunk - 1) / p.plan.chunk) {}

  __device__ void run() {
    load_operand(p_.q, Shared<char>(0));
    load_operand(p_.grad_out, Shared<char>(p_.layout.rows_bytes));
    ptx::cp_async_commit();
    const Shared<char> tables(p_.layout.columns);
    if (p_.plan.width > 0) {
      find_relative_scores<T, D>(p_, first_, q_, relative_, tables);
      save_relative_scores();
    }
    Gradients gradients;
    const int slices = (p_.plan.width + Gradients::kSlice - 1) / Gradients::kSlice;
    const auto load = [&](int step) { load_keys<T, D>(p_, at_, step % chunks_, Columns(p_, step)); };
    walk(chunks_ * (1 + max(slices, 1)), p_.plan.stages, load, [&](int step) {
      if (step == 0) begin(gradients);
      if (first_ < p_.num_queries) sweep(gradients, step);
    });
    scale_rows<D>(gradients.d_q, {p_.scale, p_.scale});
    if (p_.plan.width > 0) {
      add_relative_gradient<T, D>(p_, first_, gradients.d_q, d_relative(0), tables);
    }
    if (first_ < p_.num_queries) store(gradients);
  }

 private:
  __device__ void load_operand(const TokenRows& tokens, Shared<char> to) const {
    load_rows<T, D>(at_.row<const T>(p_, tokens, at_.first), tokens.token_stride, p_.num_queries - at_.first,
                    p_.head_dim, p_.plan.rows(), to);
  }

  // For the backward of the keys.
  __device__ void save_relative_scores() const {
    constexpr int kLanes = 4;  // that copy a row
    const Lane lane;
    const int bytes = p_.plan.width * static_cast<int>(sizeof(T));
    char* to = static_cast<char*>(p_.relative) + (at_.pair * p_.num_queries + first_) * bytes;
    for (int row = lane.index / kLanes; row < min(16, p_.num_queries - first_); row += 32 / kLanes) {
      for (int byte = lane.index % kLanes * 16; byte < bytes; byte += kLanes * 16) {
        *reinterpret_cast<uint4*>(to + row * bytes + byte) = relative_.as<uint4>(row * p_.layout.pitch + byte)[0];
      }
    }
  }

  __device__ void begin(Gradients& gradients) const {
    gradients.begin(q_, grad_out_);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_ + Lane().row + 8 * half;
      gradients.origin[half] = row < p_.num_queries ? p_.lse[at_.pair * p_.num_queries + row] * kLog2e : INFINITY;
    }
  }

  // Over the chunk of keys of a step.
  __device__ void sweep(Gradients& gradients, int step) const {
    const int number = step / chunks_, chunk = step % chunks_;
    const Columns columns(p_, step);
    const int present = min(p_.plan.chunk, p_.num_keys - chunk * p_.plan.chunk);
#pragma unroll 1
    for (int first = 0; first < present; first += 16 * kBlocks) {
      Block weights[kBlocks], d_weights[kBlocks];
      find_weights(gradients, columns, first, present - first, weights, d_weights);
      if (number == 0) {
        add_delta(gradients, weights, d_weights, present - first);
      } else {
        add_gradients(gradients, columns, first, present - first, weights, d_weights, number - 1);
      }
    }
    if (chunk < chunks_ - 1) return;
    if (number == 0) {
      finish_delta(gradients);
    } else if (p_.plan.width > 0) {
      finish_slice(gradients, number - 1);
    }
  }

  // Of the keys from `first` on, of which `present` are left.
  __device__ void find_weights(const Gradients& gradients, const Columns& columns, int first, int present,
                               Block (&weights)[kBlocks], Block (&d_weights)[kBlocks]) const {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      if (16 * b >= present) break;
      const int offset = (first + 16 * b) * kRowBytes;
      multiply(weights[b], gradients.q, columns.operand(0) + offset);
      scale_scores(weights[b], p_.score_scale);
      multiply(d_weights[b], gradients.grad_out, columns.operand(1) + offset);
    }
    finish_scores<T>(weights, p_, relative_, columns.relative() + first * p_.layout.pitch, present);
#pragma unroll
    for (int i = 0; i < 8 * kBlocks; ++i) {
      float& weight = weights[i / 8][i / 4 % 2][i % 4];
      weight = ptx::ex2(weight - gradients.origin[i % 4 / 2]);
    }
  }

  __device__ void add_delta(Gradients& gradients, const Block (&weights)[kBlocks], const Block (&d_weights)[kBlocks],
                            int present) const {
#pragma unroll
    for (int i = 0; i < 8 * kBlocks; ++i) {
      if (16 * (i / 8) >= present) break;
      float& sum = gradients.delta[i % 4 / 2];
      sum = fmaf(weights[i / 8][i / 4 % 2][i % 4], d_weights[i / 8][i / 4 % 2][i % 4], sum);
    }
  }

  __device__ void add_gradients(Gradients& gradients, const Columns& columns, int first, int present,
                                const Block (&weights)[kBlocks], Block (&d_weights)[kBlocks], int slice) const {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      if (16 * b >= present) break;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float& d_weight = d_weights[b][i / 4][i % 4];
        d_weight = weights[b][i / 4][i % 4] * (d_weight - gradients.delta[i % 4 / 2]);
      }
      const Weights<T> d_scores(d_weights[b]);
      const int at = first + 16 * b;
      if (slice == 0) accumulate(gradients.d_q, d_scores, columns.operand(0) + at * kRowBytes);
      if (p_.plan.width > 0) {
        const RelativeRows layout{p_.layout.pitch, slice * Gradients::kSlice / SharedRow<T, D>::kPerVector};
        accumulate(gradients.d_relative, d_scores, columns.relative() + at * p_.layout.pitch, layout,
                   (p_.plan.width - slice * Gradients::kSlice) / 8);
      }
    }
  }

  __device__ void finish_delta(Gradients& gradients) const {
    const Lane lane;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      gradients.delta[half] = sum_of_row(gradients.delta[half]);
      const int row = first_ + lane.row + 8 * half;
      if (row < p_.num_queries && lane.column == 0) p_.delta[at_.pair * p_.num_queries + row] = gradients.delta[half];
    }
  }

  // The gradients of the relative scores of the warp's row `row`.
  __device__ T* d_relative(int row) const {
    return static_cast<T*>(p_.d_relative) + (at_.pair * p_.num_queries + first_ + row) * p_.plan.width;
  }

  __device__ void finish_slice(Gradients& gradients, int slice) const {
    const Lane lane;
#pragma unroll
    for (int d = 0; d < Gradients::kSlice / 8; ++d) {
      const int column = slice * Gradients::kSlice + 8 * d + lane.column;
      if (column >= p_.plan.width) break;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = lane.row + i / 2 * 8;
        const float gradient = gradients.d_relative[d][i] * (1 / kPlaced);
        if (first_ + row < p_.num_queries) d_relative(row)[column + i % 2] = from_float<T>(gradient);
      }
    }
    gradients.begin_slice();
    __syncwarp();
  }

  __device__ void store(Gradients& gradients) const {
    const int row = first_ + Lane().row;
    add_rows<T, D>(gradients.d_q, {p_.has_residual(row), p_.has_residual(row + 8)}, grad_out_);
    store_rows<T, D>(gradients.d_q, {1, 1}, p_.head_dim, q_, [&](int row) -> T* {
      return first_ + row < p_.num_queries ? at_.row<T>(p_, p_.d_q, first_ + row) : nullptr;
    });
  }

  const PoolingKernelParams& p_;
  const RowSet at_;
  const int first_;  // query of the warp
  const Shared<char> q_, grad_out_, relative_;
  const int chunks_;
};

template <class T, int D>
__global__ void __launch_bounds__(32 * PoolingBounds::of(PoolingPass::kQueries, D, sizeof(T)).warps,
                                  PoolingBounds::of(PoolingPass::kQueries, D, sizeof(T)).blocks)
    pooling_queries_kernel(const __grid_constant__ PoolingKernelParams p) {
  PoolingQueries<T, D>(p).run();
}

template <class T>
void launch_pooling_queries(const PoolingKernelParams& params, void* stream) {
  launch_pooling(params, stream, [](auto dim) { return pooling_queries_kernel<T, decltype(dim)::value>; });
}

}  // namespace vtfast::cuda
