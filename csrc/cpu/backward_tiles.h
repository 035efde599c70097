// Blocks of query rows against all keys of one head, backward: a block recomputes its probabilities from the saved
// logsumexp; the gradients of keys and values gather in cache over the blocks, those of the queries leave with each.
//
//   P = exp(S - lse)    dP = dO V^T    dS = P (dP - delta),  delta = sum_j P dP
//   dV = P^T dO         dK = scale dS^T Q         dQ = scale dS K
//
// delta comes from the row of P dP, which is at hand, and not from sum_d dO O: the output need not be kept, and its
// rounding to bfloat16 does not reach the gradients.
//
// Products of bfloat16 take P, dS, Q and dO as words of two rows where rows are summed over, and dS as words of two
// columns where columns are.
#pragma once

#include "score_panels.h"

namespace vtfast::cpu {

template <class Dot>
class BackwardTiles {
 public:
  using Acc = typename Dot::Acc;
  using Word = typename Dot::Word;

  static constexpr int kBlockTiles = 4;
  static constexpr int kMaxBlockRows = kBlockTiles * kMaxTileRows;

  // `max_columns` is a whole number of panels.
  static size_t scratch_bytes(int64_t head_dim, int64_t max_columns) {
    const HeadLayout<Dot> head(head_dim);
    const int64_t block_rows = kMaxBlockRows + kPackedRows<Acc>;
    size_t bytes =
        2 * Scratch::bytes_of<Word>(max_columns * head.word_stride) +
        Scratch::bytes_of<Word>(max_columns * head.padded) + 2 * Scratch::bytes_of<Acc>(max_columns * head.padded) +
        2 * Scratch::bytes_of<Acc>(kMaxBlockRows * max_columns) + 2 * Scratch::bytes_of<Acc>(block_rows * head.padded) +
        Scratch::bytes_of<Acc>(kMaxTileRows * head.padded);
    if (kPairs) {
      bytes += 3 * Scratch::bytes_of<Word>(kMaxBlockRows * max_columns) +
               2 * Scratch::bytes_of<Word>(kMaxBlockRows * head.padded) +
               Scratch::bytes_of<Word>(kPackedRows<Acc> * head.word_stride);
    }
    return bytes;
  }

  BackwardTiles(ScorePanels<Dot>& panels, double scale, int64_t max_columns, Scratch& scratch)
      : panels_(panels), scale_(scale) {
    const HeadLayout<Dot>& head = panels.head();
    for (Word** array : {&keys_, &values_}) *array = scratch.take<Word>(max_columns * head.word_stride);
    key_rows_ = scratch.take<Word>(max_columns * head.padded);
    for (Acc** array : {&d_keys_, &d_values_}) *array = scratch.take<Acc>(max_columns * head.padded);
    for (Acc** array : {&probabilities_, &d_scores_}) *array = scratch.take<Acc>(kMaxBlockRows * max_columns);
    for (Acc** array : {&query_rows_, &d_out_rows_}) {
      *array = scratch.take<Acc>((kMaxBlockRows + kPackedRows<Acc>)*head.padded);
    }
    result_ = scratch.take<Acc>(kMaxTileRows * head.padded);
    if constexpr (kPairs) {
      for (Word** array : {&probability_words_, &d_score_words_, &d_score_columns_}) {
        *array = scratch.take<Word>(kMaxBlockRows * max_columns);
      }
      for (Word** array : {&query_words_, &d_out_words_}) *array = scratch.take<Word>(kMaxBlockRows * head.padded);
      row_words_ = scratch.take<Word>(kPackedRows<Acc> * head.word_stride);
    }
  }

  // Takes the rows of k and v, given by key(column) and value(column), and begins the sums of their gradients.
  template <class Key, class Value>
  void take_columns(Key key, Value value) {
    const HeadLayout<Dot>& head = panels_.head();
    const int64_t num_keys = panels_.num_keys();
    panels_.pack_keys(key, keys_);
    panels_.pack_keys(value, values_);
    for (int64_t c = 0; c < panels_.columns(); c += Dot::kPack) {
      // A column behind the last one has no dS; any finite row will do.
      const std::decay_t<decltype(key(0))> rows[2] = {key(std::min(c, num_keys - 1)),
                                                      key(std::min(c + 1, num_keys - 1))};
      load_row_pack(rows, head, key_rows_ + c / Dot::kPack * head.padded);
    }
    for (Acc* sums : {d_keys_, d_values_}) std::fill_n(sums, panels_.columns() * head.padded, Acc(0));
  }

  // What a score, its bias included, must be multiplied by to be in base-2 units; see ForwardTiles.
  double unit() const { return kPairs ? scale_ * kLog2E : 1; }

  // Works on `num_rows` query rows, in blocks. Of the rows of a tile, `rows`
  //   rows.load(row, factor, query, d_out)  loads q, times `factor`, and dO, each [padded]
  //   rows.set_bias(m, row)                 makes row m of bias_of(column) that of a row
  //   rows.bias(column)                     as ScorePanels has bias_of
  //   rows.lse(row), rows.penalties(row)    as probabilities_row has them
  //   rows.take_d_scores(row, d_scores)     sees a row of dS, a ScoreRow
  //   rows.store(row, d_query)              takes dS K [padded]; the scale is missing
  //   rows.between()                        is called some times in the course of the work
  template <class Rows>
  void run(int64_t num_rows, Rows& rows) {
    with_tile_rows(tile_rows(num_rows), [&]<int kRows>() {
      constexpr int kBlock = kBlockTiles * kRows;
      for (int64_t row = 0; row < num_rows; row += kBlock) attend_block<kRows>(row, num_rows, rows);
    });
  }

  // The gradients [columns, padded]; that of the keys is to be multiplied by d_keys_factor().
  const Acc* d_keys() const { return d_keys_; }
  const Acc* d_values() const { return d_values_; }
  Acc d_keys_factor() const { return static_cast<Acc>(kPairs ? scale_ : kLn2); }

 private:
  static constexpr bool kPairs = Dot::kPack == 2;

  // Rows that the panels of scores hold: those of a block, or where they go on as words, those of a tile.
  template <int kRows>
  static constexpr int kScoreRows = kPairs ? kRows : kBlockTiles * kRows;

  template <int kRows, class Rows>
  void attend_block(int64_t first_row, int64_t num_rows, Rows& rows) {
    constexpr int kBlock = kBlockTiles * kRows;
    const int64_t count = std::min<int64_t>(num_rows - first_row, kBlock);
    for (int64_t row = 0; row < count; row += kRows) attend_tile<kRows>(first_row, row, num_rows, rows);
    if constexpr (kPairs) {
      accumulate_columns(probability_words_, d_out_words_, (count + 1) / 2, kBlock / 2, d_values_);
      accumulate_columns(d_score_words_, query_words_, (count + 1) / 2, kBlock / 2, d_keys_);
    } else {
      accumulate_columns(probabilities_, d_out_rows_, count, kBlock, d_values_);
      accumulate_columns(d_scores_, query_rows_, count, kBlock, d_keys_);
    }
  }

  // Tile at row `offset` of the block at `first_row`.
  template <int kRows, class Rows>
  __attribute__((noinline)) void attend_tile(int64_t first_row, int64_t offset, int64_t num_rows, Rows& rows) {
    constexpr int64_t kPanelStride = kScoreRows<kRows> * kPanel<Acc>;
    const int64_t padded = panels_.head().padded, tile_row = first_row + offset;
    const int64_t present = std::min<int64_t>(kRows, num_rows - tile_row), kept = kPairs ? 0 : offset;
    const auto clamped = [&](int64_t m) { return std::min(tile_row + m, num_rows - 1); };
    Acc* queries = query_rows_ + kept * padded;
    Acc* d_outs = d_out_rows_ + kept * padded;
    Acc* p = probabilities_ + kept * kPanel<Acc>;
    Acc* d_scores = d_scores_ + kept * kPanel<Acc>;
    const auto row_of = [&](Acc* panels, int m) {
      return ScoreRow<Acc>{panels + m * kPanel<Acc>, kPanelStride, panels_.columns()};
    };

    const Acc factor = static_cast<Acc>(kPairs ? 1 : scale_ * kLog2E);
    for (int m = 0; m < kRows; ++m) {
      rows.load(clamped(m), factor, queries + m * padded, d_outs + m * padded);
      rows.set_bias(m, clamped(m));
    }
    panels_.template compute<kRows>(
        pack_rows<kRows>(queries), keys_, p, kPanelStride, [&](int64_t column) { return rows.bias(column); },
        [&] { rows.between(); });
    for (int m = 0; m < kRows; ++m) {
      const Acc lse = rows.lse(clamped(m));
      probabilities_row(row_of(p, m), rows.penalties(clamped(m)), static_cast<Acc>(unit()), lse);
      if (m % 4 == 0) rows.between();
    }
    weigh_values<kRows>(pack_rows<kRows>(d_outs), p, d_scores);
    for (int m = 0; m < present; ++m) {
      subtract_delta(row_of(d_scores, m), p - d_scores);
      rows.take_d_scores(tile_row + m, row_of(d_scores, m));
    }
    const Word* d_score_rows;
    if constexpr (kPairs) {
      keep_words<kRows>(offset, present);
      d_score_rows = d_score_columns_;
    } else {
      d_score_rows = d_scores;
    }
    multiply_panels<Dot, kRows>(d_score_rows, kPanelStride / Dot::kPack,
                                (panels_.num_keys() + Dot::kPack - 1) / Dot::kPack, key_rows_, padded,
                                [&](int m, int64_t d, Vector<Acc> sum) { store(result_ + m * padded + d, sum); });
    for (int m = 0; m < present; ++m) rows.store(tile_row + m, result_ + m * padded);
  }

  // The rows of a tile [kRows, padded] as the left side of a product over head_dim.
  template <int kRows>
  const Word* pack_rows(const Acc* rows) {
    if constexpr (kPairs) {
      const HeadLayout<Dot>& head = panels_.head();
      for (int m = 0; m < kRows; ++m) {
        for (int64_t d = 0; d < head.padded; d += 2 * kLanes<Acc>) {
          const bool whole = d + kLanes<Acc> < head.padded;
          const Acc* source = rows + m * head.padded + d;
          const Vector<Acc> second = whole ? load(source + kLanes<Acc>) : Vector<Acc>{};
          store(row_words_ + m * head.word_stride + d / 2, pack_neighbours(load(source), second));
        }
      }
      return panels_.pack_rows(row_words_);
    } else {
      return panels_.pack_rows(rows);
    }
  }

  // d_scores = P dP = p (dO V^T)
  template <int kRows>
  VTFAST_INLINE void weigh_values(const Word* d_outs, const Acc* p, Acc* d_scores) {
    constexpr int64_t kPanelStride = kScoreRows<kRows> * kPanel<Acc>;
    const Word* values = values_;
    for (int64_t column = 0; column < panels_.columns(); column += kPanel<Acc>) {
      panels_.template product<kRows>(d_outs, values, panels_.columns() - column, [&](int m, int c, Vector<Acc> sum) {
        store(d_scores + m * kPanel<Acc> + c, sum * load(p + m * kPanel<Acc> + c));
      });
      values += panels_.panel_words();
      p += kPanelStride;
      d_scores += kPanelStride;
    }
  }

  // P dP -> dS = P dP - delta P. The sum of P is not quite 1 where the logsumexp is large, so delta is divided by it.
  static void subtract_delta(const ScoreRow<Acc>& d_scores, int64_t to_probabilities) {
    Vector<Acc> sum{}, sum_p{};
    d_scores.for_each_vector([&](const Acc* d, int64_t) {
      sum += load(d);
      sum_p += load(d + to_probabilities);
    });
    const Acc total = reduce_add<Acc>(sum_p);
    const Vector<Acc> delta = broadcast(total == 0 ? Acc(0) : reduce_add<Acc>(sum) / total);
    d_scores.for_each_vector([&](Acc* d, int64_t) { store(d, load(d) - delta * load(d + to_probabilities)); });
  }

  // Words of two rows of the tile's P, dS, Q and dO, kept for the end of the block, and of two columns of dS. Rows from
  // `present` on are none.
  template <int kRows>
  VTFAST_INLINE void keep_words(int64_t offset, int64_t present) {
    constexpr int64_t kBlockStride = kBlockTiles * kRows / 2 * kPanel<Acc>, kPanelStride = kRows * kPanel<Acc>;
    const int64_t padded = panels_.head().padded;
    for (int m = 0; m < kRows; m += 2) {
      const Acc second = m + 1 < present, first = m < present;
      const auto pair = [&](const Acc* rows, int64_t stride) {
        const Vector<Acc> a = load(rows), b = load(rows + stride);
        return pack_pair(first != 0 ? a : Vector<Acc>{}, second != 0 ? b : Vector<Acc>{});
      };
      for (int64_t column = 0; column < panels_.columns(); column += kLanes<Acc>) {
        const int64_t panel = column / kPanel<Acc>, within = column % kPanel<Acc>;
        const int64_t source = panel * kPanelStride + m * kPanel<Acc> + within;
        const int64_t target = panel * kBlockStride + (offset + m) / 2 * kPanel<Acc> + within;
        store(probability_words_ + target, pair(probabilities_ + source, kPanel<Acc>));
        store(d_score_words_ + target, pair(d_scores_ + source, kPanel<Acc>));
      }
      for (int64_t d = 0; d < padded; d += kLanes<Acc>) {
        const int64_t target = (offset + m) / 2 * padded + d;
        store(query_words_ + target, pair(query_rows_ + m * padded + d, padded));
        store(d_out_words_ + target, pair(d_out_rows_ + m * padded + d, padded));
      }
    }
    for (int m = 0; m < kRows; ++m) {
      for (int64_t panel = 0; panel < panels_.num_panels(); ++panel) {
        // A panel's second vector may lie behind the columns: it meets no depth of the product.
        const Acc* source = d_scores_ + panel * kPanelStride + m * kPanel<Acc>;
        store(d_score_columns_ + (panel * kRows + m) * kLanes<Acc>,
              pack_neighbours(load(source), load(source + kLanes<Acc>)));
      }
    }
  }

  // sums[column] += sum over `depth` rows of words of panels[row][column] rows[row]
  void accumulate_columns(const Word* panels, const Word* rows, int64_t depth, int64_t panel_rows, Acc* sums) {
    const int64_t padded = panels_.head().padded;
    for (int64_t column = 0; column < panels_.num_keys(); column += kColumnTileRows) {
      const Word* p = panels + column / kPanel<Acc> * panel_rows * kPanel<Acc> + column % kPanel<Acc>;
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

  ScorePanels<Dot>& panels_;
  double scale_;
  Word* keys_;               // [panels, word_stride, kPanel]
  Word* values_;             // [panels, word_stride, kPanel]
  Word* key_rows_;           // [columns / kPack, padded]
  Acc* d_keys_;              // [columns, padded]
  Acc* d_values_;            // [columns, padded]
  Acc* probabilities_;       // [panels, kScoreRows, kPanel]
  Acc* d_scores_;            // [panels, kScoreRows, kPanel]
  Acc* query_rows_;          // [kScoreRows, padded], times the factor of rows.load
  Acc* d_out_rows_;          // [kScoreRows, padded]
  Acc* result_;              // [tile rows, padded]
  Word* probability_words_;  // [panels, block rows / 2, kPanel]
  Word* d_score_words_;      // [panels, block rows / 2, kPanel]
  Word* d_score_columns_;    // [panels, tile rows, kPanel / 2]
  Word* query_words_;        // [block rows / 2, padded]
  Word* d_out_words_;        // [block rows / 2, padded]
  Word* row_words_;          // [tile rows, word_stride]
};

}  // namespace vtfast::cpu
