// Forward pass of one head of one group.
#pragma once

#include <optional>

#include "forward_tiles.h"
#include "group_pair.h"
#include "scores.h"

namespace vtfast::cpu {

template <class Dot, class T>
class AttentionForward {
 public:
  using Acc = typename Dot::Acc;
  using Session = typename Dot::Session;

  static size_t scratch_bytes(const GridAttentionParams& p) {
    return GroupPair<T>::scratch_bytes(p) + Scores<Dot>::scratch_bytes(p) +
           ForwardTiles<Dot, T>::scratch_bytes(p.head_dim, Scores<Dot>::max_columns(p)) +
           (p.bias_table == nullptr ? 0 : BiasRuns<Acc>::scratch_bytes(p.bias));
  }

  // `prefix_out` is acc [B, num_passes, num_heads, P, head_dim], the prefix's result of each pass.
  AttentionForward(const GridAttentionParams& p, Acc* prefix_out, Scratch& scratch)
      : p_(p),
        prefix_out_(prefix_out),
        groups_(p, scratch),
        scores_(p, scratch),
        tiles_(scores_, p.scale, Scores<Dot>::max_columns(p), scratch) {
    if (p.bias_table != nullptr) bias_.emplace(p.bias, scratch);
  }

  // One task; `next` is the one that will follow it.
  void run(const GroupTask& task, const GroupTask& next) {
    groups_.advance(task, next);
    attend(task.group, task.head);
  }

  // The prefix against all tokens.
  void run_global(int64_t batch, int64_t head) {
    groups_.advance_global(batch, head);
    attend(0, head);
  }

 private:
  const Group& group() const { return groups_.group(); }
  const HeadView<T>& view() const { return groups_.view(); }

  void attend(int64_t pass, int64_t head) {
    if (bias_ && head != head_) {
      const auto scale = static_cast<Acc>(kLog2E / tiles_.unit());
      bias_->expand(static_cast<const Acc*>(p_.bias_table), p_.num_heads, head, scale);
    }
    head_ = head;
    if (group().num_rows == 0) return;
    scores_.begin_group(group(), bias_.has_value());
    const auto column = [this](int64_t which) {
      return [this, which](int64_t c) { return view().row(group().column_token[c], which); };
    };
    tiles_.take_columns(column(1), column(2));
    tiles_.with_rows(group().num_rows, [&]<int kRows>() {
      for (int64_t row = 0; row < group().num_rows; row += kRows) attend_tile<kRows>(pass, row);
    });
  }

  template <int kRows>
  __attribute__((noinline)) void attend_tile(int64_t pass, int64_t first_row) {
    const auto clamped = [&](int64_t m) { return std::min(first_row + m, group().num_rows - 1); };
    for (int m = 0; m < kRows; ++m) {
      const bool prefix = group().is_prefix_row(clamped(m));
      scores_.set_bias(m, bias_ && !prefix ? &*bias_ : nullptr, prefix ? 0 : group().row_slot[clamped(m)]);
    }
    const TileStatistics<Acc, kRows> statistics = tiles_.template attend<kRows>(
        [&](int m) { return view().row(group().token_of_row(clamped(m)), 0); },
        [this](int64_t column) { return scores_.bias(column); }, [&](int m) { return scores_.penalties(clamped(m)); },
        [this] { groups_.fetch([](int64_t, const HeadView<T>&) {}); });
    for (int m = 0; m < kRows && first_row + m < group().num_rows; ++m) {
      write_lse(pass, first_row + m, statistics.lse[m]);
      write_row(pass, first_row + m, tiles_.result(m), statistics.inverse_sum[m]);
    }
  }

  void write_lse(int64_t pass, int64_t row, Acc lse) {
    if (group().is_prefix_row(row)) {
      static_cast<Acc*>(p_.prefix_lse)[view().prefix(pass, group().prefix_of_row(row))] = lse;
    } else {
      static_cast<Acc*>(p_.lse)[view().lse(group().token_of_row(row))] = lse;
    }
  }

  void write_row(int64_t pass, int64_t row, const Acc* result, Acc inverse_sum) {
    if (group().is_prefix_row(row)) {
      Acc* target = prefix_out_ + view().prefix(pass, group().prefix_of_row(row)) * p_.head_dim;
      store_row(result, p_.head_dim, inverse_sum, target);
    } else {
      store_row(result, p_.head_dim, inverse_sum, static_cast<T*>(p_.out) + view().out(group().token_of_row(row)));
    }
  }

  const GridAttentionParams& p_;
  Acc* prefix_out_;
  GroupPair<T> groups_;
  Scores<Dot> scores_;
  ForwardTiles<Dot, T> tiles_;
  std::optional<BiasRuns<Acc>> bias_;
  int64_t head_ = -1;
};

}  // namespace vtfast::cpu
