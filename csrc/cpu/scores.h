// Scores of a tile of query rows against the keys of a group, and other products over its panels.
#pragma once

#include <algorithm>

#include "bias.h"
#include "head_view.h"
#include "matrix_unit.h"
#include "operands.h"
#include "penalties.h"
#include "softmax.h"

namespace vtfast::cpu {

template <class Acc>
inline constexpr int64_t kPackedRows = (kMaxTileRows + kLanes<Acc> - 1) / kLanes<Acc> * kLanes<Acc>;

// The score panels of up to one tile of query rows against all keys of a group.
template <class Dot>
class Scores {
 public:
  using Acc = typename Dot::Acc;
  using Word = typename Dot::Word;

  static size_t scratch_bytes(const GridAttentionParams& p) {
    const int64_t columns = max_columns(p);
    const HeadLayout<Dot> head(p.head_dim);
    return Penalties<Acc>::scratch_bytes(p, columns) + Scratch::bytes_of<Word>(kPackedRows<Acc> * head.word_stride) +
           2 * Scratch::bytes_of<Acc>(columns) + Scratch::bytes_of<Acc>(Dot::kMaxRows * (columns + kPanel<Acc>)) +
           Scratch::bytes_of<Word>(kLanes<Word> * head.word_stride);
  }

  Scores(const GridAttentionParams& p, Scratch& scratch) : head_(p.head_dim), penalties_(p, max_columns(p), scratch) {
    const int64_t columns = max_columns(p);
    packed_q_ = scratch.take<Word>(kPackedRows<Acc> * head_.word_stride);
    no_bias_ = scratch.take<Acc>(columns);
    is_slot_ = scratch.take<BitsOf<Acc>>(columns);
    tails_ = scratch.take<Acc>(Dot::kMaxRows * (columns + kPanel<Acc>));
    staging_ = scratch.take<Word>(kLanes<Word> * head_.word_stride);
  }

  // Panels that are slots throughout take their bias from where it lies; the columns behind them, the last slots, the
  // prefix (no bias) and what fills the last vector (never seen), from `tails_`.
  void begin_group(const Group& group, bool has_bias) {
    group_ = &group;
    columns_ = round_up(group.num_columns, Dot::kMatrixUnit ? kPanel<Acc> : kLanes<Acc>);
    penalties_.begin_group(group, columns_);
    tail_start_ = has_bias ? group.num_slots / kPanel<Acc> * kPanel<Acc> : 0;
    std::fill_n(no_bias_, group.num_columns, Acc(0));
    std::fill_n(no_bias_ + group.num_columns, columns_ - group.num_columns, -kInfinity<Acc>);
    std::fill_n(is_slot_, group.num_slots, BitsOf<Acc>(-1));
    std::fill_n(is_slot_ + group.num_slots, columns_ - group.num_slots, BitsOf<Acc>(0));
  }

  static int64_t max_columns(const GridAttentionParams& p) { return round_up(Group::max_columns(p), kPanel<Acc>); }
  int64_t columns() const { return columns_; }
  const Acc* penalties(int64_t row) { return penalties_.of_row(row); }
  int64_t num_panels() const { return (columns_ + kPanel<Acc> - 1) / kPanel<Acc>; }
  const HeadLayout<Dot>& head() const { return head_; }

  // Packs all rows k of `which` as the right side of a product over head_dim: [panel][word][kPanel].
  template <class T>
  void pack_keys(const HeadView<T>& view, int64_t which, Word* panels) {
    for (int64_t column = 0; column < columns_; column += kLanes<Acc>) {
      const auto row = [&](int i) {
        const int64_t c = std::min(column + i, group_->num_columns - 1);
        return view.row(group_->column_token[c], which);
      };
      Word* target = panels + column / kPanel<Acc> * panel_words() + column % kPanel<Acc>;
      pack_columns<Dot>(row, head_, Acc(1), staging_, target, kPanel<Acc>);
    }
  }

  // The same out of rows that are loaded already, [columns, padded].
  void pack_keys(const Word* rows, Word* panels) const {
    for (int64_t column = 0; column < columns_; column += kLanes<Acc>, rows += kLanes<Acc> * head_.padded) {
      transpose_rows(rows, panels + column / kPanel<Acc> * panel_words() + column % kPanel<Acc>, kPanel<Acc>);
    }
  }

  int64_t panel_words() const { return head_.word_stride * kPanel<Acc>; }

  // Packs tile rows, given by row(m) for m < kMaxTileRows, as the left side: [word][kPackedRows].
  template <class Row>
  const Word* pack_rows(Row row, Acc scale) {
    for (int64_t m = 0; m < kPackedRows<Acc>; m += kLanes<Word>) {
      pack_columns<Dot>([&](int i) { return row(m + i); }, head_, scale, staging_, packed_q_ + m, kPackedRows<Acc>);
    }
    return packed_q_;
  }

  // The same out of rows that are loaded already, [kPackedRows, padded]; those behind the tile may hold anything.
  const Word* pack_rows(const Word* rows) {
    for (int64_t m = 0; m < kPackedRows<Acc>; m += kLanes<Word>, rows += kLanes<Word> * head_.padded) {
      transpose_rows(rows, packed_q_ + m, kPackedRows<Acc>);
    }
    return packed_q_;
  }

  // The same for the matrix unit: [kMaxRows][word_stride].
  template <class Row>
  const Word* load_rows(Row row) {
    for (int m = 0; m < Dot::kMaxRows; ++m) load_words(row(m), head_, Acc(1), packed_q_ + m * head_.word_stride);
    return packed_q_;
  }

  // Sets the bias of tile row m: that of slot `slot`, or none.
  void set_bias(int m, const BiasRuns<Acc>* bias, int64_t slot) {
    if (bias == nullptr) {
      bias_[m] = tails_at_[m] = no_bias_;
      return;
    }
    bias_[m] = bias->row(slot);
    Acc* tail = tails_ + m * (columns_ - tail_start_);
    tails_at_[m] = tail - tail_start_;
    int64_t column = tail_start_;
    for (; column < group_->num_slots; column += kLanes<Acc>, tail += kLanes<Acc>) {
      const auto bias_bits = bit_cast<Vector<BitsOf<Acc>>>(load(bias_[m] + column)) & load(is_slot_ + column);
      store(tail, load(no_bias_ + column) + bit_cast<Vector<Acc>>(bias_bits));
    }
    for (; column < columns_; column += kLanes<Acc>, tail += kLanes<Acc>) store(tail, load(no_bias_ + column));
  }

  // scores = factor scores + bias, for the matrix unit, which stores its products bare.
  void add_bias(int m, const ScoreRow<Acc>& scores, Acc factor) const {
    scores.for_each_vector([&](Acc* target, int64_t column) {
      const Acc* bias = column < tail_start_ ? bias_[m] : tails_at_[m];
      store(target, load(target) * factor + load(bias + column));
    });
  }

  // scores[panel][m][...] = bias + q k^T; between() is called after each panel.
  template <int kRows, class Between>
  VTFAST_INLINE void compute(const Word* rows, const Word* keys, Acc* scores, int64_t panel_stride,
                             Between between) const {
    for (int64_t column = 0; column < columns_; column += kPanel<Acc>) {
      const Acc* const* bias = column < tail_start_ ? bias_ : tails_at_;
      // The bias comes last: its rows lie in the second-level cache, and here the products hide the way from there.
      product<kRows>(rows, keys, columns_ - column, [&](int m, int c, Vector<Acc> sum) {
        store(scores + m * kPanel<Acc> + c, sum + load(bias[m] + column + c));
      });
      keys += panel_words();
      scores += panel_stride;
      between();
    }
  }

  // One panel of rows x keys: sink(m, column, sum).
  template <int kRows, class Sink>
  VTFAST_INLINE void product(const Word* rows, const Word* keys, int64_t columns_left, Sink sink) const {
    if (columns_left > kLanes<Acc>) {
      product_of_vectors<kRows, 2>(rows, keys, sink);
    } else {
      product_of_vectors<kRows, 1>(rows, keys, sink);
    }
  }

 private:
  void transpose_rows(const Word* rows, Word* target, int64_t stride) const {
    for (int64_t d = 0; d < head_.padded; d += kLanes<Word>) {
      transpose(rows + d, head_.padded, target + d * stride, stride);
    }
  }

  // Not inlined: on its own, the compiler keeps the whole tile in registers.
  template <int kRows, int kVectors, class Sink>
  __attribute__((noinline)) void product_of_vectors(const Word* rows, const Word* keys, Sink sink) const {
    Tile<Dot, kRows, kVectors> tile;
    tile.fill([](int, int) { return Vector<Acc>{}; });
    tile.template multiply_add<1, kPackedRows<Acc>>(rows, keys, kPanel<Acc>, head_.words);
    tile.drain(sink);
  }

  HeadLayout<Dot> head_;
  Penalties<Acc> penalties_;
  const Group* group_ = nullptr;
  int64_t columns_ = 0;
  int64_t tail_start_ = 0;
  Word* packed_q_;
  Acc* no_bias_;          // [columns], 0, and minus infinity behind the last key
  BitsOf<Acc>* is_slot_;  // [columns], all bits set for slots of the group
  Acc* tails_;
  Word* staging_;
  const Acc* bias_[Dot::kMaxRows];
  const Acc* tails_at_[Dot::kMaxRows];
};

// product[m] = sum over columns of panels[m][column] rows[column]: sink(m, d, sum). Panels are kRows tall out of
// `panel_stride` words; `depth` counts words.
template <class Dot, int kRows, class Sink>
VTFAST_INLINE void multiply_panels(const typename Dot::Word* panels, int64_t panel_stride, int64_t depth,
                                   const typename Dot::Word* rows, int64_t padded, Sink sink) {
  using Acc = typename Dot::Acc;
  constexpr int kPanelWords = kPanel<Acc> / Dot::kPack;
  const auto multiply = [&]<int kVectors>(int64_t d) {
    const typename Dot::Word *p = panels, *r = rows + d;
    Tile<Dot, kRows, kVectors> tile;
    tile.fill([](int, int) { return Vector<Acc>{}; });
    for (int64_t left = depth; left > 0; left -= kPanelWords, p += panel_stride, r += kPanelWords * padded) {
      tile.template multiply_add<kPanelWords, 1>(p, r, padded, std::min<int64_t>(left, kPanelWords));
    }
    tile.drain([&](int m, int c, Vector<Acc> sum) { sink(m, d + c, sum); });
  };
  int64_t d = 0;
  for (; d + kPanel<Acc> <= padded; d += kPanel<Acc>) multiply.template operator()<2>(d);
  if (d < padded) multiply.template operator()<1>(d);
}

}  // namespace vtfast::cpu
