// Backward, in two phases that only read what they share. A warp holds 16 queries and walks over the keys for dq and
// delta; then it holds 16 keys and walks over the queries for dk, dv and the table's gradient. Both compute the scores
// anew (Dao et al., "FlashAttention-2", 2023, algorithm 2, without its exchange of dq between blocks).
#pragma once

#include "gradient_tile.cuh"
#include "pipeline.cuh"
#include "scores.cuh"
#include "table_gradient.cuh"
#include "tile_stores.cuh"

namespace vtfast::cuda {

// What 16 queries add up besides: delta, the sum of p dp over the keys, as it is and as the weights of dq were rounded.
struct DeltaSums {
  float exact[2];
  float rounded[4];

  __device__ void begin() {
#pragma unroll
    for (int i = 0; i < 4; ++i) exact[i / 2] = rounded[i] = 0;
  }
};

template <class T, int D, Phase kPhase>
class Backward {
 public:
  static constexpr bool kWhole = kPhase == Phase::kBoth;
  static constexpr int kRowBytes = SharedRow<T, D>::kBytes;
  // In one sweep, dq is a difference of two sums. That costs float32 digits where keys are alike, as padding is; so it
  // first finds delta, and sixteen-bit types, whose weights are rounded anyway, save the time.
  static constexpr int kSweeps = sizeof(T) == 4 && kPhase != Phase::kKeys ? 2 : 1;
  static constexpr int kBlocks = D <= 96 ? 2 : 1;  // of 16 queries, whose scores a warp of keys holds at once

  __device__ explicit Backward(const KernelParams& p)
      : p_(p),
        pipeline_(p),
        scratch_(p.layout.scratch + threadIdx.x / 32 * p.layout.scratch_bytes),
        pad_sums_(p.layout.pad_sums),
        table_(p, pipeline_.head, Shared<float>(p.layout.table)),
        d_table_(p, pipeline_.worker, pipeline_.head, Shared<float>(p.layout.grads), scratch_.as<float>()) {
    for (int i = threadIdx.x; i < p_.plan.warps * 2 * D; i += blockDim.x) pad_sums_[i] = 0;
  }

  __device__ void run() {
    GradientTile<T, D> rows;
    DeltaSums sums;
    pipeline_.run([&](const Step& step) {
      if constexpr (kPhase != Phase::kKeys) {
        for_each_tile(step, [&](const Tile& tile) { query_phase(step, tile, rows, sums); });
      }
      if (kWhole) __syncthreads();
      if constexpr (kPhase != Phase::kQueries) {
        for_each_tile(step, [&](const Tile& tile) { key_phase(step, tile, rows); });
      }
    });
    if (kPhase == Phase::kQueries) return;
    __syncthreads();
    d_table_.finish(p_.plan.warps);
    finish_padding();
  }

 private:
  // Of a warp: a cut group has one for each.
  template <class Body>
  __device__ void for_each_tile(const Step& step, const Body& body) {
    int row = threadIdx.x / 32 * 16;
    do {
      body(Tile::of<kWhole>(p_, step, row));
      row += p_.plan.warps * 16;
    } while (kWhole && row < p_.plan.rows);
  }

  __device__ void query_phase(const Step& step, const Tile& tile, GradientTile<T, D>& rows, DeltaSums& sums) {
    if (step.is_first()) {
      const int offset = tile.row * kRowBytes;
      rows.begin(pipeline_.rows(step, 0) + offset, pipeline_.rows(step, 1) + offset);
      sums.begin();
    }
    const int first = kWhole ? 0 : step.sweep, last = kWhole ? kSweeps - 1 : step.sweep;
#pragma unroll 1
    for (int sweep = first; sweep <= last; ++sweep) {
      sweep_keys(step, tile, rows, sums, sweep);
      if (kSweeps > 1 && sweep == 0 && (kWhole || step.chunk == p_.plan.chunks - 1)) find_delta(step, tile, sums);
    }
    if (pipeline_.is_last(step)) finish_queries(step, tile, rows, sums);
  }

  __device__ void sweep_keys(const Step& step, const Tile& tile, GradientTile<T, D>& rows, DeltaSums& sums, int sweep) {
    const Entries queries(pipeline_.row_entries(step), tile.row);
    const Entries keys(pipeline_.column_entries(step), tile.unit_row);
    const LaneRows<false> lane_rows(queries, table_);
    const Shared<char> k = pipeline_.columns(step, 0) + tile.unit_row * kRowBytes;
    const Shared<char> v = pipeline_.columns(step, 1) + tile.unit_row * kRowBytes;
    const Shared<float> lse = pipeline_.stats(step, 0) + tile.row + Lane().row;
    const float origin[2] = {lse[0] * kLog2e, lse[8] * kLog2e};
#pragma unroll 1
    for (int at = 0; at < tile.count; at += 16) {
      Block weights, d_weights;
      multiply(weights, rows.first, k + at * kRowBytes);
      finish_scores(weights, p_.score_scale, table_, lane_rows, Entries(keys, at), at + 16 > tile.careful_from);
      multiply(d_weights, rows.second, v + at * kRowBytes);
#pragma unroll
      for (int i = 0; i < 8; ++i) weights[i / 4][i % 4] = ptx::ex2(weights[i / 4][i % 4] - origin[i % 4 / 2]);
      if (kSweeps == 1 || sweep == 0) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          float& sum = sums.exact[i % 4 / 2];
          sum = fmaf(weights[i / 4][i % 4], d_weights[i / 4][i % 4], sum);
        }
      }
      if constexpr (kSweeps == 1) {
        add_query_gradient(rows, sums, weights, d_weights, k + at * kRowBytes);
      } else if (sweep == 1) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          d_weights[i / 4][i % 4] = weights[i / 4][i % 4] * (d_weights[i / 4][i % 4] - sums.exact[i % 4 / 2]);
        }
        accumulate(rows.d_first, Weights<T>(d_weights), k + at * kRowBytes);
      }
    }
  }

  // Completes the exact sums, before the last sweep needs them.
  __device__ void find_delta(const Step& step, const Tile& tile, DeltaSums& sums) const {
    const Shared<int> tokens = pipeline_.row_entries(step).row + tile.row;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = Lane().row + 8 * half, token = tokens[at];
      sums.exact[half] = sum_of_row(sums.exact[half]);
      if (is_global_prefix(token)) sums.exact[half] = *delta_of(tile, at, token);
    }
  }

  __device__ bool is_global_prefix(int token) const { return p_.global_prefix() && is_prefix(p_, token); }

  // Where delta is handed on between launches; null if nothing is a query there.
  __device__ float* delta_of(const Tile& tile, int at, int token) const {
    return statistic(p_, p_.delta, p_.prefix_delta, tile.unit, tile.entry + at, token, pipeline_.head);
  }

  // dq = sum of p (dp - delta) k in one sweep, before delta is known: sums of p dp k and of p k. Both take p as it was
  // rounded, and so does their delta, so that what cancels in theory cancels here.
  __device__ void add_query_gradient(GradientTile<T, D>& rows, DeltaSums& sums, Block& weights, Block& d_weights,
                                     Shared<char> k) {
    const Weights<T> rounded(weights);
    rounded.read(weights);
#pragma unroll
    for (int i = 0; i < 8; ++i) d_weights[i / 4][i % 4] *= weights[i / 4][i % 4];
    const Weights<T> products(d_weights);
    accumulate_rows(sums.rounded, products);
    accumulate(rows.d_first, products, rows.d_second, rounded, k);
  }

  __device__ void finish_queries(const Step& step, const Tile& tile, GradientTile<T, D>& rows, DeltaSums& sums) {
    const Lane lane;
    const Shared<int> tokens = pipeline_.row_entries(step).row + tile.row;
    const float factor[2] = {p_.scale, p_.scale};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = lane.row + 8 * half, token = tokens[at];
      const bool prefix = is_prefix(p_, token);
      float delta = sums.exact[half];
      if constexpr (kSweeps == 1) {
        delta = sum_of_row(delta);
        float rounded = sums.rounded[2 * half];
        if (is_global_prefix(token)) delta = rounded = *delta_of(tile, at, token);  // that of all groups
#pragma unroll
        for (int d = 0; d < D / 8; ++d) {
          rows.d_first[d][2 * half] -= rounded * rows.d_second[d][2 * half];
          rows.d_first[d][2 * half + 1] -= rounded * rows.d_second[d][2 * half + 1];
        }
      }
      float* saved = kWhole ? (pipeline_.stats(step, 1) + (tile.row + at)).address() : delta_of(tile, at, token);
      if (saved != nullptr && lane.column == 0) *saved = delta;
      if (prefix) store_partial<D>(rows.d_first, half, factor[half], p_.head_dim, prefix_partial(tile, at, token, 0));
    }
    store(rows.d_first, factor, tokens, Operand::kQuery);
  }

  __device__ void key_phase(const Step& step, const Tile& tile, GradientTile<T, D>& rows) {
    // In a kernel of its own, this phase has keys as the rows of the pipeline; after a query phase they are its
    // columns.
    const auto key_operand = [&](int i) { return kWhole ? pipeline_.columns(step, i) : pipeline_.rows(step, i); };
    const auto query_operand = [&](int i) { return kWhole ? pipeline_.rows(step, i) : pipeline_.columns(step, i); };
    if (step.is_first()) {
      const int offset = tile.row * kRowBytes;
      rows.begin(key_operand(0) + offset, key_operand(1) + offset);
    }
    const Entries keys(pipeline_.row_entries(step), tile.row);
    const Entries queries(pipeline_.column_entries(step), tile.unit_row);
    const LaneRows<true> lane_rows(keys, table_);
    const Shared<char> q = query_operand(0) + tile.unit_row * kRowBytes;
    const Shared<char> grad_out = query_operand(1) + tile.unit_row * kRowBytes;
    const Shared<float> lse = pipeline_.stats(step, 0) + tile.unit_row;
    const Shared<float> delta = pipeline_.stats(step, 1) + tile.unit_row;
#pragma unroll 1
    for (int first = 0; first < tile.count; first += 16 * kBlocks) {
      Block d_scores[kBlocks];
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        const int at = first + 16 * b;
        if (at >= tile.count) continue;
        multiply(d_scores[b], rows.first, q + at * kRowBytes);
        finish_scores(d_scores[b], p_.score_scale, table_, lane_rows, Entries(queries, at),
                      at + 16 > tile.careful_from);
        add_key_gradients(rows, d_scores[b], q + at * kRowBytes, grad_out + at * kRowBytes, lse + at, delta + at);
      }
      d_table_.add(d_scores, keys, Entries(queries, first), tile.count - first);
    }
    if (pipeline_.is_last(step)) finish_keys(step, tile, rows);
  }

  __device__ void finish_keys(const Step& step, const Tile& tile, GradientTile<T, D>& rows) {
    const Lane lane;
    const Shared<int> tokens = pipeline_.row_entries(step).row + tile.row;
    const float factor[2] = {p_.scale, p_.scale}, one[2] = {1, 1};
    float is_padding[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = lane.row + 8 * half, token = tokens[at];
      is_padding[half] = token == kPadding;
      if (!is_prefix(p_, token)) continue;
      store_partial<D>(rows.d_first, half, factor[half], p_.head_dim, prefix_partial(tile, at, token, 1));
      store_partial<D>(rows.d_second, half, 1, p_.head_dim, prefix_partial(tile, at, token, 2));
    }
    store(rows.d_first, factor, tokens, Operand::kKey);
    store(rows.d_second, one, tokens, Operand::kValue);
    if (p_.pad_partials != nullptr && __any_sync(0xffffffffu, is_padding[0] + is_padding[1] > 0)) {
      add_padding(rows.d_first, is_padding, p_.scale, 0);
      add_padding(rows.d_second, is_padding, 1, 1);
    }
  }

  __device__ void store(const float (&tile)[D / 8][4], const float (&factor)[2], Shared<int> tokens, Operand operand) {
    store_rows<T, D>(tile, factor, p_.head_dim, scratch_, [&](int at) -> T* {
      const int token = tokens[at];
      if (!is_token(token) || is_prefix(p_, token)) return nullptr;
      return packed_row(p_, static_cast<T*>(p_.d_qkv), token, operand, pipeline_.head);
    });
  }

  // Where a group's share of a prefix token's gradient goes; `part` is q, k or v.
  __device__ float* prefix_partial(const Tile& tile, int at, int token, int part) const {
    const int group = group_of_entry(p_, tile.unit, tile.entry + at);
    const int64_t place = prefix_place(p_, group, pipeline_.head, token % p_.clip_tokens);
    return p_.prefix_grad_partials + (place * 3 + part) * p_.head_dim;
  }

  // Adds the padded rows of a tile to the warp's sums for keys (0) or values (1).
  __device__ void add_padding(const float (&tile)[D / 8][4], const float (&is_padding)[2], float factor, int part) {
    const Lane lane;
    const Shared<float> sums = pad_sums_ + (threadIdx.x / 32 * 2 + part) * D;
#pragma unroll
    for (int d = 0; d < D / 8; ++d) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float sum = (is_padding[0] != 0 ? tile[d][c] : 0) + (is_padding[1] != 0 ? tile[d][c + 2] : 0);
        for (int distance = 4; distance < 32; distance *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
        if (lane.row == 0) sums[8 * d + lane.column + c] += sum * factor;
      }
    }
  }

  // After a barrier: the sums of all warps, added in order.
  __device__ void finish_padding() const {
    if (p_.pad_partials == nullptr) return;
    const int64_t block = int64_t{pipeline_.worker} * p_.num_heads + pipeline_.head;
    for (int i = threadIdx.x; i < 2 * p_.head_dim; i += blockDim.x) {
      const int part = i / p_.head_dim, column = i % p_.head_dim;
      float sum = 0;
      for (int warp = 0; warp < p_.plan.warps; ++warp) sum += pad_sums_[(warp * 2 + part) * D + column];
      p_.pad_partials[block * 2 * p_.head_dim + i] = sum;
    }
  }

  const KernelParams& p_;
  const Pipeline<T, D, Pass::kBackward, kWhole, kPhase != Phase::kKeys, kWhole ? 1 : kSweeps> pipeline_;
  const Shared<char> scratch_;
  const Shared<float> pad_sums_;
  const BiasTable table_;
  TableGradient d_table_;
};

template <class T, int D, Phase kPhase>
__global__ void __launch_bounds__(32 * LaunchBounds::of(Pass::kBackward, D, sizeof(T)).warps,
                                  LaunchBounds::of(Pass::kBackward, D, sizeof(T)).blocks)
    backward_kernel(const __grid_constant__ KernelParams p) {
  Backward<T, D, kPhase>(p).run();
}

}  // namespace vtfast::cuda
