// Scores of a tile of query rows against packed keys, and other products over their panels.
#pragma once

#include <algorithm>

#include "matrix_unit.h"
#include "operands.h"
#include "softmax.h"

namespace vtfast::cpu {

template <class Acc>
inline constexpr int64_t kPackedRows = (kMaxTileRows + kLanes<Acc> - 1) / kLanes<Acc> * kLanes<Acc>;

// Keys are packed as panels of kPanel columns. Behind the last key a panel repeats it; the bias says that nobody sees
// it.
template <class Dot>
class ScorePanels {
 public:
  using Acc = typename Dot::Acc;
  using Word = typename Dot::Word;

  static size_t scratch_bytes(int64_t head_dim) {
    const HeadLayout<Dot> head(head_dim);
    return Scratch::bytes_of<Word>(kPackedRows<Acc> * head.word_stride) +
           Scratch::bytes_of<Word>(kLanes<Word> * head.word_stride);
  }

  ScorePanels(int64_t head_dim, Scratch& scratch)
      : head_(head_dim),
        packed_q_(scratch.take<Word>(kPackedRows<Acc> * head_.word_stride)),
        staging_(scratch.take<Word>(kLanes<Word> * head_.word_stride)) {}

  // The columns that `num_keys` keys take, a whole number of vectors.
  void begin(int64_t num_keys) {
    num_keys_ = num_keys;
    columns_ = round_up(num_keys, Dot::kMatrixUnit ? kPanel<Acc> : kLanes<Acc>);
  }

  int64_t num_keys() const { return num_keys_; }
  int64_t columns() const { return columns_; }
  int64_t num_panels() const { return (columns_ + kPanel<Acc> - 1) / kPanel<Acc>; }
  int64_t panel_words() const { return head_.word_stride * kPanel<Acc>; }
  const HeadLayout<Dot>& head() const { return head_; }

  // Packs the keys, given by row(column), as the right side of a product over head_dim: [panel][word][kPanel].
  template <class Row>
  void pack_keys(Row row, Word* panels) {
    for (int64_t column = 0; column < columns_; column += kLanes<Acc>) {
      Word* target = panels + column / kPanel<Acc> * panel_words() + column % kPanel<Acc>;
      pack_columns<Dot>([&](int i) { return row(std::min(column + i, num_keys_ - 1)); }, head_, Acc(1), staging_,
                        target, kPanel<Acc>);
    }
  }

  // Packs tile rows, given by row(m) for m < kMaxTileRows, as the left side: [word][kPackedRows].
  template <class Row>
  const Word* pack_rows(Row row, Acc scale) {
    for (int64_t m = 0; m < kPackedRows<Acc>; m += kLanes<Word>) {
      pack_columns<Dot>([&](int i) { return row(m + i); }, head_, scale, staging_, packed_q_ + m, kPackedRows<Acc>);
    }
    return packed_q_;
  }

  // The same out of rows that are loaded already, [kPackedRows, word_stride]; those behind the tile may hold anything.
  const Word* pack_rows(const Word* rows) {
    for (int64_t m = 0; m < kPackedRows<Acc>; m += kLanes<Word>, rows += kLanes<Word> * head_.word_stride) {
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

  // scores = factor scores + bias[column], for the matrix unit, which stores its products bare.
  template <class BiasOf>
  void add_bias(BiasOf bias_of, int m, const ScoreRow<Acc>& scores, Acc factor) const {
    scores.for_each_vector(
        [&](Acc* target, int64_t column) { store(target, load(target) * factor + load(bias_of(column)[m] + column)); });
  }

  // scores[panel][m][...] = bias + q k^T, the bias of row m being bias_of(column)[m] + column for the columns of a
  // panel; between() is called after each.
  template <int kRows, class BiasOf, class Between>
  VTFAST_INLINE void compute(const Word* rows, const Word* keys, Acc* scores, int64_t panel_stride, BiasOf bias_of,
                             Between between) const {
    for (int64_t column = 0; column < columns_; column += kPanel<Acc>) {
      const Acc* const* bias = bias_of(column);
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
    for (int64_t d = 0; d < head_.word_stride; d += kLanes<Word>) {
      transpose(rows + d, head_.word_stride, target + d * stride, stride);
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
  int64_t num_keys_ = 0;
  int64_t columns_ = 0;
  Word* packed_q_;
  Word* staging_;
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
