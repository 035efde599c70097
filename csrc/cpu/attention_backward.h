// Backward pass of one head of one group. Blocks of query rows recompute their probabilities from the saved logsumexp;
// the gradients of keys and values gather in cache over the blocks, those of the queries leave with each block.
//
//   P = exp(S - lse)    dP = dO V^T    dS = P (dP - delta),  delta = sum_j P dP
//   dV = P^T dO         dK = scale dS^T Q         dQ = scale dS K         dBias = dS
//
// delta comes from the row of P dP, which is at hand, and not from sum_d dO O: the output need not be kept, and its
// rounding to bfloat16 does not reach the gradients.
#pragma once

#include <optional>

#include "group_pair.h"
#include "scores.h"
#include "shared_gradients.h"

namespace vtfast::cpu {

template <class T>
class AttentionBackward {
 public:
  using Acc = AccOf<T>;
  using Dot = FusedDot<Acc>;

  static size_t scratch_bytes(const GridAttentionParams& p) {
    const HeadLayout<Dot> head(p.head_dim);
    const int64_t columns = Scores<Dot>::max_columns(p);
    return GroupPair<T>::scratch_bytes(p) + Scores<Dot>::scratch_bytes(p) +
           (p.bias_table == nullptr ? 0 : 2 * BiasRuns<Acc>::scratch_bytes(p.bias)) +
           5 * Scratch::bytes_of<Acc>(columns * head.padded) + 2 * Scratch::bytes_of<Acc>(kMaxBlockRows * columns) +
           2 * Scratch::bytes_of<Acc>((kMaxBlockRows + kPackedRows<Acc>)*head.padded) +
           Scratch::bytes_of<Acc>(kMaxTileRows * head.padded) + Scratch::bytes_of<Acc>(head.padded);
  }

  AttentionBackward(const GridAttentionParams& p, const GridAttentionGradients& gradients,
                    const SharedGradients<Acc>& shared, Scratch& scratch)
      : p_(p), gradients_(gradients), shared_(shared), groups_(p, scratch), scores_(p, scratch) {
    const int64_t padded = scores_.head().padded, columns = Scores<Dot>::max_columns(p);
    if (p.bias_table != nullptr) {
      bias_.emplace(p.bias, scratch);
      bias_sums_.emplace(p.bias, scratch);
    }
    for (Acc** array : {&keys_, &values_, &key_rows_, &d_keys_, &d_values_}) {
      *array = scratch.take<Acc>(columns * padded);
    }
    for (Acc** array : {&probabilities_, &d_scores_}) *array = scratch.take<Acc>(kMaxBlockRows * columns);
    for (Acc** array : {&query_rows_, &d_out_rows_})
      *array = scratch.take<Acc>((kMaxBlockRows + kPackedRows<Acc>)*padded);
    result_ = scratch.take<Acc>(kMaxTileRows * padded);
    row_ = scratch.take<Acc>(padded);
  }

  // Groups [begin, end) of all clips, for one head; `d_table` is acc [R], the bias gradient of just these groups.
  void run(int64_t head, int64_t begin, int64_t end, Acc* d_table) {
    select_head(head);
    if (bias_sums_) bias_sums_->clear();
    const int64_t num_groups = p_.geometry.num_groups();
    for (int64_t item = begin; item < end; ++item) {
      const auto task = [&](int64_t i) { return GroupTask{i / num_groups, i % num_groups, head}; };
      groups_.advance(task(item), task(std::min(item + 1, end - 1)));
      attend(item / num_groups, item % num_groups);
      store_columns<false>();
      if (shared_.pad != nullptr) store_padding(item);
    }
    if (bias_sums_) bias_sums_->fold(d_table);
  }

  // The prefix against all tokens; adds to what the groups have written.
  void run_global(int64_t batch, int64_t head) {
    select_head(head);
    groups_.advance_global(batch, head);
    attend(batch, p_.geometry.num_groups());
    store_columns<true>();
  }

 private:
  const Group& group() const { return groups_.group(); }
  const HeadView<T>& view() const { return groups_.view(); }

  static constexpr int kBlockTiles = 4;
  static constexpr int kMaxBlockRows = kBlockTiles * kMaxTileRows;

  void select_head(int64_t head) {
    if (bias_ && head != head_) {
      bias_->expand(static_cast<const Acc*>(p_.bias_table), p_.num_heads, head, Acc(kLog2E));
    }
    head_ = head;
  }

  void attend(int64_t batch, int64_t contribution) {
    const int64_t padded = scores_.head().padded;
    batch_ = batch;
    contribution_ = contribution;
    scores_.begin_group(group(), bias_.has_value());
    load_columns(2, values_);
    load_columns(1, keys_);
    for (Acc* sums : {d_keys_, d_values_}) std::fill_n(sums, scores_.columns() * padded, Acc(0));
    if (group().num_prefix_rows == 0) clear_prefix({0});
    if (group().num_rows == 0) return;
    with_tile_rows(tile_rows(group().num_rows), [&]<int kRows>() {
      constexpr int kBlock = kBlockTiles * kRows;
      for (int64_t row = 0; row < group().num_rows; row += kBlock) attend_block<kRows>(row);
    });
  }

  // Rows k or v (`which`) of the group, packed for products over head_dim; key_rows_ keeps them as rows.
  void load_columns(int64_t which, Acc* panels) {
    const int64_t padded = scores_.head().padded;
    for (int64_t c = 0; c < group().num_columns; ++c) {
      load_row(view().row(group().column_token[c], which), p_.head_dim, padded, Acc(1), key_rows_ + c * padded);
    }
    std::fill_n(key_rows_ + group().num_columns * padded, (scores_.columns() - group().num_columns) * padded, Acc(0));
    scores_.pack_keys(key_rows_, panels);
  }

  template <int kRows>
  void attend_block(int64_t first_row) {
    const int64_t rows = std::min<int64_t>(group().num_rows - first_row, kBlockTiles * kRows);
    for (int64_t row = 0; row < rows; row += kRows) attend_tile<kRows>(first_row, row);
    accumulate_columns(probabilities_, d_out_rows_, rows, kBlockTiles * kRows, d_values_);
    accumulate_columns(d_scores_, query_rows_, rows, kBlockTiles * kRows, d_keys_);
  }

  // Tile at row `offset` of the block at `first_row`.
  template <int kRows>
  __attribute__((noinline)) void attend_tile(int64_t first_row, int64_t offset) {
    constexpr int64_t kPanelStride = kBlockTiles * kRows * kPanel<Acc>;
    const int64_t padded = scores_.head().padded, tile_row = first_row + offset;
    const auto clamped = [&](int64_t m) { return std::min(tile_row + m, group().num_rows - 1); };
    Acc* queries = query_rows_ + offset * padded;
    Acc* d_outs = d_out_rows_ + offset * padded;
    Acc* p = probabilities_ + offset * kPanel<Acc>;
    Acc* d_scores = d_scores_ + offset * kPanel<Acc>;

    for (int m = 0; m < kRows; ++m) {
      load_query(clamped(m), queries + m * padded, d_outs + m * padded);
      const bool prefix = group().is_prefix_row(clamped(m));
      scores_.set_bias(m, bias_ && !prefix ? &*bias_ : nullptr, prefix ? 0 : group().row_slot[clamped(m)]);
    }
    const auto fetch = [this] {
      groups_.fetch([this](int64_t token, const HeadView<T>& next) {
        if (token < p_.geometry.num_prefix) return;
        groups_.fetch_row(static_cast<const T*>(gradients_.grad_out) + next.out(token));
      });
    };
    scores_.template compute<kRows>(scores_.pack_rows(queries), keys_, p, kPanelStride, fetch);
    for (int m = 0; m < kRows; ++m) {
      recover_probabilities({p + m * kPanel<Acc>, kPanelStride, scores_.columns()}, clamped(m));
      if (m % 4 == 0) fetch();
    }
    weigh_values<kRows>(scores_.pack_rows(d_outs), p, d_scores);
    for (int m = 0; m < kRows && tile_row + m < group().num_rows; ++m) {
      const ScoreRow<Acc> row{d_scores + m * kPanel<Acc>, kPanelStride, scores_.columns()};
      const bool biased = bias_sums_ && !group().is_prefix_row(tile_row + m);
      subtract_delta(row, p - d_scores, biased ? bias_sums_->row(group().row_slot[tile_row + m]) : nullptr);
    }
    store_queries<kRows>(tile_row, d_scores, kPanelStride);
  }

  // Loads q and dO of a row; the result of a prefix row is averaged over the passes.
  void load_query(int64_t row, Acc* query, Acc* d_out) {
    const int64_t padded = scores_.head().padded, token = group().token_of_row(row);
    const Acc share = group().is_prefix_row(row) ? Acc(1) / p_.num_passes() : Acc(1);
    load_row(view().row(token, 0), p_.head_dim, padded, static_cast<Acc>(p_.scale * kLog2E), query);
    load_row(static_cast<const T*>(gradients_.grad_out) + view().out(token), p_.head_dim, padded, share, d_out);
  }

  void recover_probabilities(const ScoreRow<Acc>& scores, int64_t row) {
    const int64_t token = group().token_of_row(row);
    Acc lse;
    if (group().is_prefix_row(row)) {
      const int64_t pass = p_.prefix_queries == PrefixQueries::kGlobal ? 0 : contribution_;
      lse = static_cast<const Acc*>(p_.prefix_lse)[view().prefix(pass, token)];
    } else {
      lse = static_cast<const Acc*>(p_.lse)[view().lse(token)];
    }
    probabilities_row(scores, scores_.penalties(row), lse);
  }

  // d_scores = P dP = p (dO V^T)
  template <int kRows>
  VTFAST_INLINE void weigh_values(const Acc* d_outs, const Acc* p, Acc* d_scores) {
    constexpr int64_t kPanelStride = kBlockTiles * kRows * kPanel<Acc>;
    const Acc* values = values_;
    for (int64_t column = 0; column < scores_.columns(); column += kPanel<Acc>) {
      scores_.template product<kRows>(d_outs, values, scores_.columns() - column, [&](int m, int c, Vector<Acc> sum) {
        store(d_scores + m * kPanel<Acc> + c, sum * load(p + m * kPanel<Acc> + c));
      });
      values += scores_.panel_words();
      p += kPanelStride;
      d_scores += kPanelStride;
    }
  }

  // P dP -> dS = P dP - delta P, added to `bias_sums` if there is one. The sum of P is not quite 1 where the logsumexp
  // is large, so delta is divided by it.
  void subtract_delta(const ScoreRow<Acc>& d_scores, int64_t to_probabilities, Acc* bias_sums) {
    Vector<Acc> sum{}, sum_p{};
    d_scores.for_each_vector([&](const Acc* d, int64_t) {
      sum += load(d);
      sum_p += load(d + to_probabilities);
    });
    const Acc total = reduce_add<Acc>(sum_p);
    const Vector<Acc> delta = broadcast(total == 0 ? Acc(0) : reduce_add<Acc>(sum) / total);
    const auto differentiate = [&](Acc* d) {
      const Vector<Acc> result = load(d) - delta * load(d + to_probabilities);
      store(d, result);
      return result;
    };
    if (bias_sums == nullptr) {
      d_scores.for_each_vector([&](Acc* d, int64_t) { differentiate(d); });
      return;
    }
    d_scores.for_each_vector([&](Acc* d, int64_t column) {
      const Vector<Acc> result = differentiate(d);
      if (column + kLanes<Acc> <= group().num_slots) {
        store(bias_sums + column, load(bias_sums + column) + result);
      } else {
        for (int64_t c = column; c < group().num_slots; ++c) bias_sums[c] += result[c - column];
      }
    });
  }

  // d_q = scale d_scores K
  template <int kRows>
  VTFAST_INLINE void store_queries(int64_t tile_row, const Acc* d_scores, int64_t panel_stride) {
    const int64_t padded = scores_.head().padded;
    const Acc scale = static_cast<Acc>(p_.scale);
    multiply_panels<Dot, kRows>(d_scores, panel_stride, group().num_columns, key_rows_, padded,
                                [&](int m, int64_t d, Vector<Acc> sum) { store(result_ + m * padded + d, sum); });
    for (int m = 0; m < kRows && tile_row + m < group().num_rows; ++m) {
      const int64_t row = tile_row + m;
      if (group().is_prefix_row(row)) {
        store_row(result_ + m * padded, p_.head_dim, scale, shared_prefix(group().prefix_of_row(row), 0));
      } else {
        T* target = static_cast<T*>(gradients_.d_qkv) + view().packed(group().token_of_row(row), 0);
        store_row(result_ + m * padded, p_.head_dim, scale, target);
      }
    }
  }

  // sums[column] += sum over `depth` rows of panels[row][column] rows[row]
  void accumulate_columns(const Acc* panels, const Acc* rows, int64_t depth, int64_t block_rows, Acc* sums) {
    const int64_t padded = scores_.head().padded;
    for (int64_t column = 0; column < group().num_columns; column += kColumnTileRows) {
      const Acc* p = panels + column / kPanel<Acc> * block_rows * kPanel<Acc> + column % kPanel<Acc>;
      const auto accumulate = [&]<int kVectors>(int64_t d) {
        Acc* target = sums + column * padded + d;
        Tile<Dot, kColumnTileRows, kVectors> tile;
        tile.fill([&](int m, int c) { return load(target + m * padded + c); });
        tile.template multiply_add<1, kPanel<Acc>>(p, rows + d, padded, depth);
        tile.drain([&](int m, int c, Vector<Acc> sum) { store(target + m * padded + c, sum); });
      };
      int64_t d = 0;
      for (; d + kPanel<Acc> <= padded; d += kPanel<Acc>) accumulate.template operator()<2>(d);
      if (d < padded) accumulate.template operator()<1>(d);
    }
  }

  // Gradients of k and v of every token of the group; q was scaled by log2(e), which leaves again here.
  template <bool kAdd>
  void store_columns() {
    const int64_t padded = scores_.head().padded;
    for (int which : {1, 2}) {
      const Acc* sums = which == 1 ? d_keys_ : d_values_;
      const Acc factor = which == 1 ? Acc(kLn2) : Acc(1);
      for (int64_t c = 0; c < group().num_columns; ++c) {
        const int64_t token = group().column_token[c];
        if (token == Group::kPadding) continue;
        if (token < p_.geometry.num_prefix) {
          store_row(sums + c * padded, p_.head_dim, factor, shared_prefix(token, which));
          continue;
        }
        T* target = static_cast<T*>(gradients_.d_qkv) + view().packed(token, which);
        if constexpr (kAdd) {
          load_row(target, p_.head_dim, padded, Acc(1), row_);
          for (int64_t d = 0; d < padded; ++d) row_[d] += factor * sums[c * padded + d];
          store_row(row_, p_.head_dim, Acc(1), target);
        } else {
          store_row(sums + c * padded, p_.head_dim, factor, target);
        }
      }
    }
    if (!p_.prefix_keys && !kAdd) clear_prefix({1, 2});
  }

  // Gradient of the padding's k and v from group `item`.
  void store_padding(int64_t item) {
    const int64_t padded = scores_.head().padded;
    Acc* target = shared_.of_padding(p_, head_, item);
    for (const Acc* sums : {d_keys_, d_values_}) {
      std::fill_n(row_, padded, Acc(0));
      for (int64_t c = 0; c < group().num_slots; ++c) {
        if (group().column_token[c] != Group::kPadding) continue;
        for (int64_t d = 0; d < padded; ++d) row_[d] += sums[c * padded + d];
      }
      store_row(row_, p_.head_dim, sums == d_keys_ ? Acc(kLn2) : Acc(1), target);
      target += p_.head_dim;
    }
  }

  // Gradient of q, k or v (`which`) of a prefix token from this pass.
  Acc* shared_prefix(int64_t token, int which) {
    return shared_.of_prefix(p_, batch_, head_, contribution_, token, which);
  }

  void clear_prefix(std::initializer_list<int> parts) {
    for (int64_t token = 0; token < p_.geometry.num_prefix; ++token) {
      for (int which : parts) std::fill_n(shared_prefix(token, which), p_.head_dim, Acc(0));
    }
  }

  const GridAttentionParams& p_;
  const GridAttentionGradients& gradients_;
  const SharedGradients<Acc>& shared_;
  GroupPair<T> groups_;
  Scores<Dot> scores_;
  std::optional<BiasRuns<Acc>> bias_;
  std::optional<BiasRuns<Acc>> bias_sums_;
  Acc* keys_;           // [panels, head_dim, kPanel]
  Acc* values_;         // [panels, head_dim, kPanel]
  Acc* key_rows_;       // [columns, padded]
  Acc* d_keys_;         // [columns, padded]
  Acc* d_values_;       // [columns, padded]
  Acc* probabilities_;  // [panels, block rows, kPanel]
  Acc* d_scores_;       // [panels, block rows, kPanel]
  Acc* query_rows_;     // [block rows, padded], times scale and log2(e)
  Acc* d_out_rows_;     // [block rows, padded]
  Acc* result_;         // [tile rows, padded]
  Acc* row_;            // [padded]
  int64_t batch_ = 0;
  int64_t contribution_ = 0;
  int64_t head_ = -1;
};

}  // namespace vtfast::cpu
