// Forward: out = softmax(scale q k^T + bias) v, a warp for 16 queries, with the softmax's maximum and sum kept up to
// date from one block of keys to the next (Dao et al., "FlashAttention-2", 2023, algorithm 1).
#pragma once

#include "pipeline.cuh"
#include "scores.cuh"

namespace vtfast::cuda {

// 16 queries of a warp and what they have gathered so far.
template <class T, int D>
class QueryTile {
 public:
  static constexpr int kBlocks = 4;  // of 16 keys, between two updates of the maximum
  static constexpr bool kHold = D <= 96;

  float out[D / 8][4];
  float sum[2];
  float max[2];

  __device__ void begin(Shared<char> queries) {
    queries_.load(queries);
#pragma unroll
    for (int d = 0; d < D / 8; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[d][i] = 0;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[half] = 0;
      max[half] = -INFINITY;
    }
  }

  __device__ void attend(Shared<char> keys, Shared<char> values, const Entries& columns, const Tile& tile,
                         const LaneRows<false>& rows, float scale, const BiasTable& table) {
    const int count = tile.count;
    for (int first = 0; first < count; first += 16 * kBlocks) {
      Block scores[kBlocks];
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        const int at = first + 16 * b;
        if (at < count) {
          multiply(scores[b], queries_, keys + at * SharedRow<T, D>::kBytes);
          finish_scores(scores[b], scale, table, rows, Entries(columns, at), at + 16 > tile.careful_from);
        } else {
#pragma unroll
          for (int i = 0; i < 8; ++i) scores[b][i / 4][i % 4] = -INFINITY;
        }
      }
      weigh(scores);
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        const int at = first + 16 * b;
        if (at < count) accumulate(out, Weights<T>(scores[b]), values + at * SharedRow<T, D>::kBytes);
      }
    }
  }

  // Completes `sum` and returns what `out` is to be multiplied with; zero where no key was seen.
  __device__ void finish(float (&factor)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sum[half] = sum_of_row(sum[half]);
      factor[half] = sum[half] == 0 ? 0 : 1 / sum[half];
    }
  }

  // Natural logarithm; infinity where no key was seen, so that the backward finds a weight of zero.
  __device__ float lse(int half) const { return sum[half] == 0 ? INFINITY : max[half] * kLn2 + logf(sum[half]); }

 private:
  // Scores become weights relative to the largest score so far.
  __device__ void weigh(Block (&scores)[kBlocks]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = max[half];
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int i = 0; i < 4; ++i) largest = fmaxf(largest, scores[b][i / 2][i % 2 + 2 * half]);
      }
      largest = max_of_row(largest);
      const float origin = largest == -INFINITY ? 0 : largest;
      const float shrink = ptx::ex2(max[half] - origin);
      max[half] = largest;
      float added = 0;
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& weight = scores[b][i / 2][i % 2 + 2 * half];
          weight = ptx::ex2(weight - origin);
          added += weight;
        }
      }
      sum[half] = sum[half] * shrink + added;
#pragma unroll
      for (int d = 0; d < D / 8; ++d) {
        out[d][2 * half] *= shrink;
        out[d][2 * half + 1] *= shrink;
      }
    }
  }

  Rows<T, D, kHold> queries_;
};

template <class T, int D, bool kWhole>
class Forward {
 public:
  __device__ explicit Forward(const KernelParams& p)
      : p_(p), pipeline_(p), table_(p, pipeline_.head, Shared<float>(p.layout.table)) {}

  __device__ void run() {
    QueryTile<T, D> queries;
    pipeline_.run([&](const Step& step) {
      for (int row = threadIdx.x / 32 * 16; row < p_.plan.rows; row += p_.plan.warps * 16) {
        const Tile tile = Tile::of<kWhole>(p_, step, row);
        if (step.is_first()) queries.begin(pipeline_.rows(step, 0) + row * SharedRow<T, D>::kBytes);
        attend(step, tile, queries);
        if (pipeline_.is_last(step)) finish(step, tile, queries);
      }
    });
  }

 private:
  __device__ void attend(const Step& step, const Tile& tile, QueryTile<T, D>& queries) {
    const Entries rows(pipeline_.row_entries(step), tile.row);
    const int offset = tile.unit_row * SharedRow<T, D>::kBytes;
    queries.attend(pipeline_.columns(step, 0) + offset, pipeline_.columns(step, 1) + offset,
                   Entries(pipeline_.column_entries(step), tile.unit_row), tile, LaneRows<false>(rows, table_),
                   p_.score_scale, table_);
  }

  __device__ void finish(const Step& step, const Tile& tile, QueryTile<T, D>& queries) {
    const Lane lane;
    const Shared<int> rows = pipeline_.row_entries(step).row + tile.row;
    float factor[2];
    queries.finish(factor);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = lane.row + 8 * half, row = rows[at];
      if (!is_token(row)) continue;
      if (!is_prefix(p_, row)) {
        if (lane.column == 0) p_.lse[stat_index(p_, row, pipeline_.head)] = queries.lse(half);
      } else if (p_.prefix_attends()) {
        float* partial = prefix_partial(row, group_of_entry(p_, tile.unit, tile.entry + at));
        store_partial<D>(queries.out, half, factor[half], p_.head_dim, partial);
        if (lane.column == 0) partial[p_.head_dim] = queries.lse(half);
      }
    }
    const Shared<char> scratch = pipeline_.rows(step, 0) + tile.row * SharedRow<T, D>::kBytes;
    store_rows<T, D>(queries.out, factor, p_.head_dim, scratch, [&](int at) -> T* {
      const int row = rows[at];
      if (!is_token(row) || is_prefix(p_, row)) return nullptr;
      return static_cast<T*>(p_.out) + out_row(p_, row) * p_.channels() + pipeline_.head * p_.head_dim;
    });
  }

  __device__ float* prefix_partial(int token, int group) const {
    return p_.prefix_partials + prefix_place(p_, group, pipeline_.head, token % p_.clip_tokens) * (p_.head_dim + 1);
  }

  const KernelParams& p_;
  const Pipeline<T, D, Pass::kForward, kWhole, true> pipeline_;
  const BiasTable table_;
};

template <class T, int D, bool kWhole>
__global__ void __launch_bounds__(32 * LaunchBounds::of(Pass::kForward, D, sizeof(T)).warps,
                                  LaunchBounds::of(Pass::kForward, D, sizeof(T)).blocks)
    forward_kernel(const __grid_constant__ KernelParams p) {
  Forward<T, D, kWhole>(p).run();
}

}  // namespace vtfast::cuda
