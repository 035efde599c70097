// Decomposed relative positions of one query and all keys: q R_t + q R_h + q R_w, never more than a row of it at once.
#pragma once

#include "../pooling_attention.h"
#include "operands.h"
#include "scratch.h"
#include "softmax.h"

namespace vtfast::cpu {

// The three tables' rows that one query meets are as many as the keys' grid is long along t, h and w, together: the
// "steps" of the keys, those of t first.
template <class Acc>
class RelativeBias {
 public:
  static bool present(const PoolingAttentionParams& p) {
    return p.rel_pos[0] != nullptr || p.rel_pos[1] != nullptr || p.rel_pos[2] != nullptr;
  }

  static size_t scratch_bytes(const PoolingAttentionParams& p) {
    size_t bytes = Scratch::bytes_of<Acc>(num_rows(p) * padded(p)) + 2 * Scratch::bytes_of<Acc>(steps_room(p)) +
                   Scratch::bytes_of<Acc>(kLanes<Acc> * round_up(p.axes[0].k_size + p.axes[1].k_size, kLanes<Acc>));
    for (const RelativeAxis& axis : p.axes) bytes += Scratch::bytes_of<int32_t>(axis.q_size * axis.k_size);
    return bytes + Scratch::bytes_of<const Acc*>(steps_room(p));
  }

  RelativeBias(const PoolingAttentionParams& p, Scratch& scratch)
      : p_(p),
        padded_(padded(p)),
        tables_(scratch.take<Acc>(num_rows(p) * padded_)),
        at_step_(scratch.take<Acc>(steps_room(p))),
        step_sums_(scratch.take<Acc>(steps_room(p))),
        line_sums_(scratch.take<Acc>(kLanes<Acc> * round_up(p.axes[0].k_size + p.axes[1].k_size, kLanes<Acc>))),
        step_row_(scratch.take<const Acc*>(steps_room(p))) {
    std::fill_n(step_row_, steps_room(p), tables_);
    int64_t first = 0;
    for (int i = 0; i < 3; ++i) {
      const RelativeAxis& axis = p.axes[i];
      first_row_[i] = first;
      for (int64_t row = 0; row < axis.num_rows(); ++row, ++first) {
        Acc* target = tables_ + first * padded_;
        if (p.rel_pos[i] == nullptr) {
          std::fill_n(target, padded_, Acc(0));
        } else {
          load_row(static_cast<const Acc*>(p.rel_pos[i]) + row * p.head_dim, p.head_dim, padded_, Acc(1), target);
        }
      }
      chosen_[i] = -1;
      rows_[i] = scratch.take<int32_t>(axis.q_size * axis.k_size);
      for (int64_t q = 0; q < axis.q_size; ++q) {
        for (int64_t k = 0; k < axis.k_size; ++k) rows_[i][q * axis.k_size + k] = static_cast<int32_t>(axis.row(q, k));
      }
    }
  }

  // Chooses the query at `index` of its grid.
  void select(int64_t index) {
    const auto at = BasicCoordinates<int64_t>::of(index, p_.axes[1].q_size, p_.axes[2].q_size);
    const int64_t coordinates[3] = {at.t, at.h, at.w};
    int64_t step = 0;
    for (int i = 0; i < 3; ++i) {
      const int64_t keys = p_.axes[i].k_size;
      // Neighbours in the order of memory share t and h.
      if (coordinates[i] != chosen_[i]) {
        const int32_t* rows = rows_[i] + coordinates[i] * keys;
        for (int64_t k = 0; k < keys; ++k) step_row_[step + k] = tables_ + (first_row_[i] + rows[k]) * padded_;
        chosen_[i] = coordinates[i];
      }
      step += keys;
    }
  }

  // bias [grid keys] = factor times that of the chosen query `q` [padded]; up to a vector behind it is written, too.
  VTFAST_INLINE void expand(const Acc* q, Acc factor, Acc* bias) {
    multiply_steps(q, factor);
    const int64_t num_t = p_.axes[0].k_size, num_h = p_.axes[1].k_size, num_w = p_.axes[2].k_size;
    const Acc *of_t = at_step_, *of_h = of_t + num_t, *of_w = of_h + num_h;
    for (int64_t t = 0; t < num_t; ++t) {
      for (int64_t h = 0; h < num_h; ++h, bias += num_w) {
        const Vector<Acc> line = broadcast(of_t[t] + of_h[h]);
        for (int64_t w = 0; w < num_w; w += kLanes<Acc>) store(bias + w, load(of_w + w) + line);
      }
    }
  }

  // Backward, from the chosen query's d_scores [grid keys], which are read up to a vector past their end:
  // d_query [padded] += sum over steps of d_step R, and d_tables [rows, padded] += d_step q.
  VTFAST_INLINE void differentiate(const Acc* q, const Acc* d_scores, Acc* d_query, Acc* d_tables) {
    sum_steps(d_scores);
    int64_t d = 0;
    for (; d + 3 * kLanes<Acc> <= padded_; d += 3 * kLanes<Acc>) differentiate_channels<3>(q, d, d_query, d_tables);
    for (; d < padded_; d += kLanes<Acc>) differentiate_channels<1>(q, d, d_query, d_tables);
  }

  // Rows of the three tables, one after the other.
  static int64_t num_rows(const PoolingAttentionParams& p) {
    return p.axes[0].num_rows() + p.axes[1].num_rows() + p.axes[2].num_rows();
  }
  static int64_t padded(const PoolingAttentionParams& p) { return round_up(p.head_dim, kLanes<Acc>); }

 private:
  static int64_t num_steps(const PoolingAttentionParams& p) {
    return p.axes[0].k_size + p.axes[1].k_size + p.axes[2].k_size;
  }
  static int64_t steps_room(const PoolingAttentionParams& p) {
    return round_up(num_steps(p), kLanes<Acc>) + kLanes<Acc>;
  }

  // at_step [steps] = factor times q R of every step
  VTFAST_INLINE void multiply_steps(const Acc* q, Acc factor) {
    constexpr int kWhole = kLanes<Acc>, kHalf = kWhole / 2;
    int64_t step = 0;
    for (; step + kHalf < num_steps(p_); step += kWhole) multiply_some<kWhole>(q, factor, step);
    if (step < num_steps(p_)) multiply_some<kHalf>(q, factor, step);
  }

  template <int kCount>
  VTFAST_INLINE void multiply_some(const Acc* q, Acc factor, int64_t step) {
    Vector<Acc> sums[kCount] = {};
    for (int64_t d = 0; d < padded_; d += kLanes<Acc>) {
      const Vector<Acc> query = load(q + d);
#pragma GCC unroll 16
      for (int i = 0; i < kCount; ++i) sums[i] += query * load(step_row_[step + i] + d);
    }
    store(at_step_ + step, sum_each<Acc, kCount>(sums) * broadcast(factor));
  }

  template <int kVectors>
  VTFAST_INLINE void differentiate_channels(const Acc* q, int64_t d, Acc* d_query, Acc* d_tables) {
    Vector<Acc> query[kVectors], sum[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      query[v] = load(q + d + v * kLanes<Acc>);
      sum[v] = load(d_query + d + v * kLanes<Acc>);
    }
    for (int64_t step = 0; step < num_steps(p_); ++step) {
      const Vector<Acc> d_step = broadcast(step_sums_[step]);
      const Acc* row = step_row_[step] + d;
      Acc* target = d_tables + (row - tables_);
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) {
        sum[v] += d_step * load(row + v * kLanes<Acc>);
        store(target + v * kLanes<Acc>, load(target + v * kLanes<Acc>) + d_step * query[v]);
      }
    }
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) store(d_query + d + v * kLanes<Acc>, sum[v]);
  }

  // step_sums [steps] = the sum of d_scores over the keys of every step
  VTFAST_INLINE void sum_steps(const Acc* d_scores) {
    const int64_t num_t = p_.axes[0].k_size, num_h = p_.axes[1].k_size, num_w = p_.axes[2].k_size;
    Acc *of_lines = at_step_, *of_w = step_sums_ + num_t + num_h;
    std::fill_n(of_lines, round_up(num_t + num_h, kLanes<Acc>), Acc(0));
    for (int64_t w = 0; w < num_w; w += kLanes<Acc>) {
      const int64_t count = std::min<int64_t>(num_w - w, kLanes<Acc>);
      const auto inside = first_lanes(count);
      Acc *of_t = line_sums_, *of_h = line_sums_ + num_t * kLanes<Acc>;
      std::fill_n(of_h, num_h * kLanes<Acc>, Acc(0));
      Vector<Acc> total{};
      for (int64_t t = 0; t < num_t; ++t) {
        const Acc* source = d_scores + t * num_h * num_w + w;
        Vector<Acc> sum{};
        for (int64_t h = 0; h < num_h; ++h, source += num_w) {
          const Vector<Acc> line = inside ? load(source) : Vector<Acc>{};
          sum += line;
          store(of_h + h * kLanes<Acc>, load(of_h + h * kLanes<Acc>) + line);
        }
        store(of_t + t * kLanes<Acc>, sum);
        total += sum;
      }
      store_partial_from_acc(of_w + w, total, count);
      for (int64_t i = 0; i < num_t + num_h; i += kLanes<Acc>) {
        Vector<Acc> lines[kLanes<Acc>];
#pragma GCC unroll 16
        for (int j = 0; j < kLanes<Acc>; ++j) lines[j] = load(line_sums_ + (i + j) * kLanes<Acc>);
        store(of_lines + i, load(of_lines + i) + sum_each<Acc, kLanes<Acc>>(lines));
      }
    }
    std::copy_n(of_lines, num_t + num_h, step_sums_);
  }

  // A mask of the first `count` lanes.
  static VTFAST_INLINE auto first_lanes(int64_t count) {
    BitsOf<Acc> lanes[kLanes<Acc>];
    for (int i = 0; i < kLanes<Acc>; ++i) lanes[i] = i < count ? -1 : 0;
    return load(lanes);
  }

  const PoolingAttentionParams& p_;
  int64_t padded_;
  int64_t first_row_[3];
  int64_t chosen_[3];     // coordinates of the query whose rows step_row_ holds
  Acc* tables_;           // [rows of all three, padded]
  Acc* at_step_;          // [steps]; backward, sums over lines of keys
  Acc* step_sums_;        // [steps]
  Acc* line_sums_;        // [t and h of the keys, kLanes], not yet summed over the lanes
  const Acc** step_row_;  // [steps], the table's row that the chosen query has at a step
  int32_t* rows_[3];      // [q_size, k_size]
};

}  // namespace vtfast::cpu
