// Backward pass of one head of one group, with the gradient of the bias: dBias = dS.
#pragma once

#include <optional>

#include "backward_tiles.h"
#include "group_pair.h"
#include "scores.h"
#include "shared_gradients.h"

namespace vtfast::cpu {

template <class Dot, class T>
class AttentionBackward {
 public:
  using Acc = typename Dot::Acc;

  static size_t scratch_bytes(const GridAttentionParams& p) {
    return GroupPair<T>::scratch_bytes(p) + Scores<Dot>::scratch_bytes(p) +
           BackwardTiles<Dot>::scratch_bytes(p.head_dim, Scores<Dot>::max_columns(p)) +
           (p.bias_table == nullptr ? 0 : 2 * BiasRuns<Acc>::scratch_bytes(p.bias)) +
           Scratch::bytes_of<Acc>(HeadLayout<Dot>(p.head_dim).padded);
  }

  AttentionBackward(const GridAttentionParams& p, const GridAttentionGradients& gradients,
                    const SharedGradients<Acc>& shared, Scratch& scratch)
      : p_(p),
        gradients_(gradients),
        shared_(shared),
        groups_(p, scratch),
        scores_(p, scratch),
        tiles_(scores_, p.scale, Scores<Dot>::max_columns(p), scratch) {
    if (p.bias_table != nullptr) {
      bias_.emplace(p.bias, scratch);
      bias_sums_.emplace(p.bias, scratch);
    }
    row_ = scratch.take<Acc>(scores_.head().padded);
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
  friend class BackwardTiles<Dot>;

  const Group& group() const { return groups_.group(); }
  const HeadView<T>& view() const { return groups_.view(); }

  void select_head(int64_t head) {
    if (bias_ && head != head_) {
      const auto scale = static_cast<Acc>(kLog2E / tiles_.unit());
      bias_->expand(static_cast<const Acc*>(p_.bias_table), p_.num_heads, head, scale);
    }
    head_ = head;
  }

  void attend(int64_t batch, int64_t contribution) {
    batch_ = batch;
    contribution_ = contribution;
    scores_.begin_group(group(), bias_.has_value());
    const auto column = [this](int64_t which) {
      return [this, which](int64_t c) { return view().row(group().column_token[c], which); };
    };
    tiles_.take_columns(column(1), column(2));
    if (group().num_prefix_rows == 0) clear_prefix({0});
    if (group().num_rows > 0) tiles_.run(group().num_rows, *this);
  }

  // The rows of the group as BackwardTiles asks for them. The result of a prefix row is averaged over the passes.
  void load(int64_t row, Acc factor, Acc* query, Acc* d_out) {
    const int64_t padded = scores_.head().padded, token = group().token_of_row(row);
    const Acc share = group().is_prefix_row(row) ? Acc(1) / p_.num_passes() : Acc(1);
    load_row(view().row(token, 0), p_.head_dim, padded, factor, query);
    load_row(static_cast<const T*>(gradients_.grad_out) + view().out(token), p_.head_dim, padded, share, d_out);
  }

  void set_bias(int m, int64_t row) {
    const bool prefix = group().is_prefix_row(row);
    scores_.set_bias(m, bias_ && !prefix ? &*bias_ : nullptr, prefix ? 0 : group().row_slot[row]);
  }

  const Acc* const* bias(int64_t column) const { return scores_.bias(column); }
  const Acc* penalties(int64_t row) { return scores_.penalties(row); }

  Acc lse(int64_t row) const {
    const int64_t token = group().token_of_row(row);
    if (!group().is_prefix_row(row)) return static_cast<const Acc*>(p_.lse)[view().lse(token)];
    const int64_t pass = p_.prefix_queries == PrefixQueries::kGlobal ? 0 : contribution_;
    return static_cast<const Acc*>(p_.prefix_lse)[view().prefix(pass, token)];
  }

  void between() {
    groups_.fetch([this](int64_t token, const HeadView<T>& next) {
      if (token < p_.geometry.num_prefix) return;
      groups_.fetch_row(static_cast<const T*>(gradients_.grad_out) + next.out(token));
    });
  }

  // dS is the gradient of the bias.
  void take_d_scores(int64_t row, const ScoreRow<Acc>& d_scores) {
    if (!bias_sums_ || group().is_prefix_row(row)) return;
    Acc* sums = bias_sums_->row(group().row_slot[row]);
    d_scores.for_each_vector([&](const Acc* d, int64_t column) {
      if (column + kLanes<Acc> <= group().num_slots) {
        cpu::store(sums + column, cpu::load(sums + column) + cpu::load(d));
      } else {
        for (int64_t c = column; c < group().num_slots; ++c) sums[c] += d[c - column];
      }
    });
  }

  void store(int64_t row, const Acc* d_query) {
    const Acc scale = static_cast<Acc>(p_.scale);
    if (group().is_prefix_row(row)) {
      store_row(d_query, p_.head_dim, scale, shared_prefix(group().prefix_of_row(row), 0));
    } else {
      T* target = static_cast<T*>(gradients_.d_qkv) + view().packed(group().token_of_row(row), 0);
      store_row(d_query, p_.head_dim, scale, target);
    }
  }

  // Gradients of k and v of every token of the group.
  template <bool kAdd>
  void store_columns() {
    const int64_t padded = scores_.head().padded;
    for (int which : {1, 2}) {
      const Acc* sums = which == 1 ? tiles_.d_keys() : tiles_.d_values();
      const Acc factor = which == 1 ? tiles_.d_keys_factor() : Acc(1);
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
    for (const Acc* sums : {tiles_.d_keys(), tiles_.d_values()}) {
      std::fill_n(row_, padded, Acc(0));
      for (int64_t c = 0; c < group().num_slots; ++c) {
        if (group().column_token[c] != Group::kPadding) continue;
        for (int64_t d = 0; d < padded; ++d) row_[d] += sums[c * padded + d];
      }
      store_row(row_, p_.head_dim, sums == tiles_.d_keys() ? tiles_.d_keys_factor() : Acc(1), target);
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
  BackwardTiles<Dot> tiles_;
  std::optional<BiasRuns<Acc>> bias_;
  std::optional<BiasRuns<Acc>> bias_sums_;
  Acc* row_;  // [padded]
  int64_t batch_ = 0;
  int64_t contribution_ = 0;
  int64_t head_ = -1;
};

}  // namespace vtfast::cpu
