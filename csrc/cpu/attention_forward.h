// Forward pass of one head of one group: scores of a tile of query rows against all keys, softmax over whole rows,
// product with v. A group's keys stay in cache; its scores never leave it.
#pragma once

#include <optional>

#include "group_pair.h"
#include "scores.h"

namespace vtfast::cpu {

template <class Dot, class T>
class AttentionForward {
 public:
  using Acc = typename Dot::Acc;
  using Word = typename Dot::Word;
  using Session = typename Dot::Session;

  static size_t scratch_bytes(const GridAttentionParams& p) {
    const HeadLayout<Dot> head(p.head_dim);
    const int64_t columns = Scores<Dot>::max_columns(p);
    return GroupPair<T>::scratch_bytes(p) + Scores<Dot>::scratch_bytes(p) +
           (p.bias_table == nullptr ? 0 : BiasRuns<Acc>::scratch_bytes(p.bias)) +
           Scratch::bytes_of<Word>(columns * head.word_stride) + Scratch::bytes_of<Word>(columns * head.padded) +
           2 * Scratch::bytes_of<Acc>(Dot::kMaxRows * columns) + Scratch::bytes_of<Acc>(Dot::kMaxRows * head.padded);
  }

  // `prefix_out` is acc [B, num_passes, num_heads, P, head_dim], the prefix's result of each pass.
  AttentionForward(const GridAttentionParams& p, Acc* prefix_out, Scratch& scratch)
      : p_(p), prefix_out_(prefix_out), groups_(p, scratch), scores_(p, scratch) {
    const HeadLayout<Dot>& head = scores_.head();
    const int64_t columns = Scores<Dot>::max_columns(p);
    if (p.bias_table != nullptr) bias_.emplace(p.bias, scratch);
    keys_ = scratch.take<Word>(columns * head.word_stride);
    values_ = scratch.take<Word>(columns * head.padded);
    score_panels_ = scratch.take<Acc>(Dot::kMaxRows * columns);
    probabilities_ = scratch.take<Word>(Dot::kMaxRows * columns);
    result_ = scratch.take<Acc>(Dot::kMaxRows * head.padded);
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
      bias_->expand(static_cast<const Acc*>(p_.bias_table), p_.num_heads, head, static_cast<Acc>(kLog2E / unit()));
    }
    head_ = head;
    if (group().num_rows == 0) return;
    scores_.begin_group(group(), bias_.has_value());
    scores_.pack_keys(view(), 1, keys_);
    pack_values();
    const auto attend_all = [&]<int kRows>() {
      for (int64_t row = 0; row < group().num_rows; row += kRows) attend_tile<kRows>(pass, row);
    };
    if constexpr (Dot::kMatrixUnit) {
      attend_all.template operator()<Dot::kMaxRows>();
    } else {
      with_tile_rows(tile_rows(group().num_rows), attend_all);
    }
  }

  void pack_values() {
    const HeadLayout<Dot>& head = scores_.head();
    const int64_t columns = Dot::kMatrixUnit ? scores_.columns() : group().num_columns;
    for (int64_t column = 0; column < columns; column += Dot::kPack) {
      const T* rows[2];
      for (int i = 0; i < Dot::kPack; ++i) {
        // Past the last column the probability is zero; any finite row will do.
        const int64_t c = std::min(column + i, group().num_columns - 1);
        rows[i] = view().row(group().column_token[c], 2);
      }
      load_row_pack(rows, head, values_ + column / Dot::kPack * head.padded);
    }
  }

  template <int kRows>
  __attribute__((noinline)) void attend_tile(int64_t pass, int64_t first_row) {
    const auto clamped = [&](int64_t m) { return std::min(first_row + m, group().num_rows - 1); };
    for (int m = 0; m < kRows; ++m) {
      const bool prefix = group().is_prefix_row(clamped(m));
      scores_.set_bias(m, bias_ && !prefix ? &*bias_ : nullptr, prefix ? 0 : group().row_slot[clamped(m)]);
    }
    score<kRows>([&](int m) { return view().row(group().token_of_row(clamped(m)), 0); });
    const TileStatistics<Acc, kRows> statistics = softmax<kRows>(clamped);
    for (int m = 0; m < kRows && first_row + m < group().num_rows; ++m) {
      write_lse(pass, first_row + m, statistics.lse[m]);
    }
    const int64_t padded = scores_.head().padded;
    multiply_values<kRows>();
    for (int m = 0; m < kRows && first_row + m < group().num_rows; ++m) {
      write_row(pass, first_row + m, result_ + m * padded, statistics.inverse_sum[m]);
    }
  }

  // What a score must be multiplied by to be in base-2 units. Products of bfloat16 take q as it is, so that nothing is
  // rounded; then the scale waits for the exponential, and the bias is divided by it.
  double unit() const { return Dot::kPack == 2 && !Dot::kMatrixUnit ? p_.scale * kLog2E : 1; }

  // Scores of the tile whose rows of q are query(m), the next group's rows fetched meanwhile.
  template <int kRows, class Query>
  VTFAST_INLINE void score(Query query) {
    const auto fetch = [this] { groups_.fetch([](int64_t, const HeadView<T>&) {}); };
    const Acc scale = static_cast<Acc>(p_.scale * kLog2E);
    if constexpr (Dot::kMatrixUnit) {
      const int64_t words = scores_.head().word_stride;
      Dot::multiply_keys(scores_.load_rows(query), words, keys_, scores_.num_panels(), score_panels_);
      for (int m = 0; m < kRows; ++m) {
        scores_.add_bias(m, score_row<kRows>(m), scale);
        fetch();
      }
    } else {
      const Word* rows = scores_.pack_rows(query, scale);
      scores_.template compute<kRows>(rows, keys_, score_panels_, kRows * kPanel<Acc>, fetch);
      for (int m = 0; m < kRows; m += 4) fetch();
    }
  }

  // result = probabilities v
  template <int kRows>
  VTFAST_INLINE void multiply_values() {
    const int64_t padded = scores_.head().padded;
    if constexpr (Dot::kMatrixUnit) {
      Dot::multiply_values(probabilities_, scores_.num_panels(), values_, padded, result_);
    } else {
      const Word* p = Dot::kPack == 1 ? reinterpret_cast<const Word*>(score_panels_) : probabilities_;
      const int64_t depth = (group().num_columns + Dot::kPack - 1) / Dot::kPack;
      multiply_panels<Dot, kRows>(p, kRows * kPanel<Acc> / Dot::kPack, depth, values_, padded,
                                  [&](int m, int64_t d, Vector<Acc> sum) { store(result_ + m * padded + d, sum); });
    }
  }

  template <int kRows>
  ScoreRow<Acc> score_row(int m) const {
    return {score_panels_ + m * kPanel<Acc>, kRows * kPanel<Acc>, scores_.columns()};
  }

  // Leaves the probabilities where multiply_panels reads them: in place of the scores, or as words of their own.
  template <int kRows, class RowOf>
  VTFAST_INLINE TileStatistics<Acc, kRows> softmax(RowOf row_of) {
    const auto row = [this](int m) { return score_row<kRows>(m); };
    const auto penalties = [&](int m) { return scores_.penalties(row_of(m)); };
    return softmax_tile<kRows, Acc>(
        row, penalties, static_cast<Acc>(unit()), [this](int m, Acc* scores, int64_t column, Vector<Acc> p) {
          if constexpr (Dot::kPack == 1) {
            store(scores, p);
          } else {
            T* words = reinterpret_cast<T*>(probabilities_) + (column / kPanel<Acc> * kRows + m) * kPanel<Acc>;
            store_from_acc(words + column % kPanel<Acc>, p);
          }
        });
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
  std::optional<BiasRuns<Acc>> bias_;
  Word* keys_;           // [panels, word_stride, kPanel]
  Word* values_;         // [columns / kPack, padded]
  Acc* score_panels_;    // [panels, kRows, kPanel]
  Word* probabilities_;  // [panels, kRows, kPanel / kPack]
  Acc* result_;          // [kRows, padded]
  int64_t head_ = -1;
};

}  // namespace vtfast::cpu
