// Forward pass of one head of one group: scores of a tile of query rows against all keys, softmax over whole rows,
// product with v. A group's keys stay in cache; its scores never leave it.
#pragma once

#include "attention_head.h"

namespace vtfast::cpu {

template <class Dot, class T>
class AttentionForward {
 public:
  using Acc = typename Dot::Acc;
  using Word = typename Dot::Word;

  static size_t scratch_bytes(const GridAttentionParams& p) {
    const HeadLayout<Dot> head(p.head_dim);
    const int64_t columns = round_up(Group::max_columns(p), kPanel<Acc>);
    return Group::scratch_bytes(p) + Scores<Dot>::scratch_bytes(p) + HeadView<T>::scratch_bytes(p) +
           (p.bias_table == nullptr ? 0 : BiasRuns<Acc>::scratch_bytes(p.bias)) +
           Scratch::bytes_of<Word>(columns * head.word_stride) + Scratch::bytes_of<Word>(columns * head.padded) +
           2 * Scratch::bytes_of<Acc>(kMaxTileRows * columns) + Scratch::bytes_of<Acc>(kMaxTileRows * head.padded);
  }

  // `prefix_out` is acc [B, num_passes, num_heads, P, head_dim], the prefix's result of each pass.
  AttentionForward(const GridAttentionParams& p, Acc* prefix_out, Scratch& scratch)
      : p_(p),
        prefix_out_(prefix_out),
        group_(p, scratch),
        scores_(p, scratch),
        view_(p, scratch) {
    const HeadLayout<Dot>& head = scores_.head();
    const int64_t columns = round_up(Group::max_columns(p), kPanel<Acc>);
    if (p.bias_table != nullptr) bias_.emplace(p.bias, scratch);
    keys_ = scratch.take<Word>(columns * head.word_stride);
    values_ = scratch.take<Word>(columns * head.padded);
    score_panels_ = scratch.take<Acc>(kMaxTileRows * columns);
    probabilities_ = scratch.take<Word>(kMaxTileRows * columns);
    result_ = scratch.take<Acc>(kMaxTileRows * head.padded);
  }

  void run(int64_t batch, int64_t group, int64_t head) {
    if (batch != batch_ || group != index_) {
      group_.gather(batch, group);
      batch_ = batch, index_ = group;
    }
    attend(batch, group, head);
  }

  // The prefix against all tokens.
  void run_global(int64_t batch, int64_t head) {
    group_.gather_global(batch);
    index_ = -1;
    attend(batch, 0, head);
  }

 private:
  void attend(int64_t batch, int64_t pass, int64_t head) {
    if (bias_ && head != head_) {
      bias_->expand(static_cast<const Acc*>(p_.bias_table), p_.num_heads, head, Acc(kLog2E));
    }
    head_ = head;
    view_.select(batch, head);
    if (group_.num_rows == 0) return;
    scores_.begin_group(group_, bias_.has_value());
    scores_.pack_keys(view_, 1, keys_);
    pack_values();
    const int rows = tile_rows(group_.num_rows);
    with_tile_rows(rows, [&]<int kRows>() {
      for (int64_t row = 0; row < group_.num_rows; row += kRows) attend_tile<kRows>(pass, row);
    });
  }

  void pack_values() {
    const HeadLayout<Dot>& head = scores_.head();
    for (int64_t column = 0; column < group_.num_columns; column += Dot::kPack) {
      const T* rows[2];
      for (int i = 0; i < Dot::kPack; ++i) {
        // Past the last column the probability is zero; any finite row will do.
        const int64_t c = std::min(column + i, group_.num_columns - 1);
        rows[i] = view_.row(group_.column_token[c], 2);
      }
      load_row_pack(rows, head, values_ + column / Dot::kPack * head.padded);
    }
  }

  template <int kRows>
  __attribute__((noinline)) void attend_tile(int64_t pass, int64_t first_row) {
    const auto clamped = [&](int64_t m) { return std::min(first_row + m, group_.num_rows - 1); };
    const Acc scale = static_cast<Acc>(p_.scale * kLog2E);
    const Word* q = scores_.pack_rows([&](int m) { return view_.row(group_.token_of_row(clamped(m)), 0); }, scale);
    for (int m = 0; m < kRows; ++m) {
      const bool prefix = group_.is_prefix_row(clamped(m));
      scores_.set_bias(m, bias_ && !prefix ? &*bias_ : nullptr, prefix ? 0 : group_.row_slot[clamped(m)]);
    }
    scores_.template compute<kRows>(q, keys_, score_panels_, kRows * kPanel<Acc>);

    Acc inverse_sums[kRows];
    for (int m = 0; m < kRows; ++m) {
      const RowStatistics<Acc> statistics = softmax<kRows>(m, clamped(m));
      inverse_sums[m] = statistics.inverse_sum;
      if (first_row + m < group_.num_rows) write_lse(pass, first_row + m, statistics.lse);
    }
    const int64_t padded = scores_.head().padded;
    const Word* p = Dot::kPack == 1 ? reinterpret_cast<const Word*>(score_panels_) : probabilities_;
    multiply_panels<Dot, kRows>(p, kRows * kPanel<Acc> / Dot::kPack, (group_.num_columns + Dot::kPack - 1) / Dot::kPack,
                                values_, padded,
                                [&](int m, int64_t d, Vector<Acc> sum) { store(result_ + m * padded + d, sum); });
    for (int m = 0; m < kRows && first_row + m < group_.num_rows; ++m) {
      write_row(pass, first_row + m, result_ + m * padded, inverse_sums[m]);
    }
  }

  template <int kRows>
  VTFAST_INLINE RowStatistics<Acc> softmax(int m, int64_t row) {
    const ScoreRow<Acc> scores{score_panels_ + m * kPanel<Acc>, kRows * kPanel<Acc>, scores_.columns()};
    if (group_.masked) {
      if (group_.is_prefix_row(row)) {
        mask_row(scores, group_.column_open, Group::kOpen);
      } else {
        mask_row(scores, group_.column_region, group_.column_region[group_.row_slot[row]]);
      }
    }
    if constexpr (Dot::kPack == 1) {
      return softmax_row(scores, [](Acc* target, int64_t, Vector<Acc> p) { store(target, p); });
    } else {
      auto* words = reinterpret_cast<T*>(probabilities_ + m * (kPanel<Acc> / Dot::kPack));
      return softmax_row(scores, [&](Acc*, int64_t column, Vector<Acc> p) {
        store_from_acc(words + column / kPanel<Acc> * kRows * kPanel<Acc> + column % kPanel<Acc>, p);
      });
    }
  }

  void write_lse(int64_t pass, int64_t row, Acc lse) {
    if (group_.is_prefix_row(row)) {
      static_cast<Acc*>(p_.prefix_lse)[view_.prefix(pass, group_.prefix_of_row(row))] = lse;
    } else {
      static_cast<Acc*>(p_.lse)[view_.lse(group_.token_of_row(row))] = lse;
    }
  }

  void write_row(int64_t pass, int64_t row, const Acc* result, Acc inverse_sum) {
    if (group_.is_prefix_row(row)) {
      Acc* target = prefix_out_ + view_.prefix(pass, group_.prefix_of_row(row)) * p_.head_dim;
      store_row(result, p_.head_dim, inverse_sum, target);
    } else {
      store_row(result, p_.head_dim, inverse_sum, static_cast<T*>(p_.out) + view_.out(group_.token_of_row(row)));
    }
  }

  const GridAttentionParams& p_;
  Acc* prefix_out_;
  Group group_;
  Scores<Dot> scores_;
  HeadView<T> view_;
  std::optional<BiasRuns<Acc>> bias_;
  Word* keys_;          // [panels, word_stride, kPanel]
  Word* values_;        // [columns / kPack, padded]
  Acc* score_panels_;   // [panels, kRows, kPanel]
  Word* probabilities_;  // [panels, kRows, kPanel / kPack]
  Acc* result_;         // [kRows, padded]
  int64_t batch_ = -1;
  int64_t index_ = -1;
  int64_t head_ = -1;
};

}  // namespace vtfast::cpu
