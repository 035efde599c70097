// Blocks of query rows against all keys of one head, backward: a block recomputes its probabilities from the saved
// logsumexp; the gradients of keys and values gather in cache over the blocks, those of the queries leave with each.
//
//   P = exp(S - lse)    dP = dO V^T    dS = P (dP - delta),  delta = sum_j P dP
//   dV = P^T dO         dK = scale dS^T Q         dQ = scale dS K
//
// delta comes from the row of P dP, which is at hand, and not from sum_d dO O: the output need not be kept, and its
// rounding to bfloat16 does not reach the gradients.
#pragma once

#include "score_panels.h"

namespace vtfast::cpu {

template <class Acc>
class BackwardTiles {
 public:
  using Dot = FusedDot<Acc>;

  static constexpr int kBlockTiles = 4;
  static constexpr int kMaxBlockRows = kBlockTiles * kMaxTileRows;

  // `max_columns` is a whole number of panels.
  static size_t scratch_bytes(int64_t head_dim, int64_t max_columns) {
    const HeadLayout<Dot> head(head_dim);
    return 5 * Scratch::bytes_of<Acc>(max_columns * head.padded) +
           2 * Scratch::bytes_of<Acc>(kMaxBlockRows * max_columns) +
           2 * Scratch::bytes_of<Acc>((kMaxBlockRows + kPackedRows<Acc>)*head.padded) +
           Scratch::bytes_of<Acc>(kMaxTileRows * head.padded);
  }

  BackwardTiles(ScorePanels<Dot>& panels, int64_t max_columns, Scratch& scratch) : panels_(panels) {
    const int64_t padded = panels.head().padded;
    for (Acc** array : {&keys_, &values_, &key_rows_, &d_keys_, &d_values_}) {
      *array = scratch.take<Acc>(max_columns * padded);
    }
    for (Acc** array : {&probabilities_, &d_scores_}) *array = scratch.take<Acc>(kMaxBlockRows * max_columns);
    for (Acc** array : {&query_rows_, &d_out_rows_}) {
      *array = scratch.take<Acc>((kMaxBlockRows + kPackedRows<Acc>)*padded);
    }
    result_ = scratch.take<Acc>(kMaxTileRows * padded);
  }

  // Takes the rows of k and v, given by key(column) and value(column), and begins the sums of their gradients.
  template <class Key, class Value>
  void take_columns(Key key, Value value) {
    load_columns(value, values_);
    load_columns(key, keys_);
    for (Acc* sums : {d_keys_, d_values_}) {
      std::fill_n(sums, panels_.columns() * panels_.head().padded, Acc(0));
    }
  }

  // Works on `num_rows` query rows, in blocks. Of the rows of a tile, `rows`
  //   rows.load(row, query, d_out)          loads q, times scale and log2(e), and dO, each [padded]
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

  // The gradients [columns, padded]; that of the keys bears the log2(e) of q.
  const Acc* d_keys() const { return d_keys_; }
  const Acc* d_values() const { return d_values_; }

 private:
  // Rows k or v, packed for products over head_dim; key_rows_ keeps them as rows.
  template <class Row>
  void load_columns(Row row, Acc* panels) {
    const int64_t padded = panels_.head().padded, num_keys = panels_.num_keys();
    for (int64_t c = 0; c < num_keys; ++c) {
      load_row(row(c), panels_.head().size, padded, Acc(1), key_rows_ + c * padded);
    }
    std::fill_n(key_rows_ + num_keys * padded, (panels_.columns() - num_keys) * padded, Acc(0));
    panels_.pack_key_rows(key_rows_, panels);
  }

  template <int kRows, class Rows>
  void attend_block(int64_t first_row, int64_t num_rows, Rows& rows) {
    constexpr int kBlock = kBlockTiles * kRows;
    const int64_t count = std::min<int64_t>(num_rows - first_row, kBlock);
    for (int64_t row = 0; row < count; row += kRows) attend_tile<kRows>(first_row, row, num_rows, rows);
    accumulate_columns(probabilities_, d_out_rows_, count, kBlock, d_values_);
    accumulate_columns(d_scores_, query_rows_, count, kBlock, d_keys_);
  }

  // Tile at row `offset` of the block at `first_row`.
  template <int kRows, class Rows>
  __attribute__((noinline)) void attend_tile(int64_t first_row, int64_t offset, int64_t num_rows, Rows& rows) {
    constexpr int64_t kPanelStride = kBlockTiles * kRows * kPanel<Acc>;
    const int64_t padded = panels_.head().padded, tile_row = first_row + offset;
    const auto clamped = [&](int64_t m) { return std::min(tile_row + m, num_rows - 1); };
    Acc* queries = query_rows_ + offset * padded;
    Acc* d_outs = d_out_rows_ + offset * padded;
    Acc* p = probabilities_ + offset * kPanel<Acc>;
    Acc* d_scores = d_scores_ + offset * kPanel<Acc>;
    const auto row_of = [&](Acc* panels, int m) {
      return ScoreRow<Acc>{panels + m * kPanel<Acc>, kPanelStride, panels_.columns()};
    };

    for (int m = 0; m < kRows; ++m) {
      rows.load(clamped(m), queries + m * padded, d_outs + m * padded);
      rows.set_bias(m, clamped(m));
    }
    panels_.template compute<kRows>(
        panels_.pack_rows(queries), keys_, p, kPanelStride, [&](int64_t column) { return rows.bias(column); },
        [&] { rows.between(); });
    for (int m = 0; m < kRows; ++m) {
      probabilities_row(row_of(p, m), rows.penalties(clamped(m)), rows.lse(clamped(m)));
      if (m % 4 == 0) rows.between();
    }
    weigh_values<kRows>(panels_.pack_rows(d_outs), p, d_scores);
    for (int m = 0; m < kRows && tile_row + m < num_rows; ++m) {
      subtract_delta(row_of(d_scores, m), p - d_scores);
      rows.take_d_scores(tile_row + m, row_of(d_scores, m));
    }
    multiply_panels<Dot, kRows>(d_scores, kPanelStride, panels_.num_keys(), key_rows_, padded,
                                [&](int m, int64_t d, Vector<Acc> sum) { store(result_ + m * padded + d, sum); });
    for (int m = 0; m < kRows && tile_row + m < num_rows; ++m) rows.store(tile_row + m, result_ + m * padded);
  }

  // d_scores = P dP = p (dO V^T)
  template <int kRows>
  VTFAST_INLINE void weigh_values(const Acc* d_outs, const Acc* p, Acc* d_scores) {
    constexpr int64_t kPanelStride = kBlockTiles * kRows * kPanel<Acc>;
    const Acc* values = values_;
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

  // sums[column] += sum over `depth` rows of panels[row][column] rows[row]
  void accumulate_columns(const Acc* panels, const Acc* rows, int64_t depth, int64_t block_rows, Acc* sums) {
    const int64_t padded = panels_.head().padded;
    for (int64_t column = 0; column < panels_.num_keys(); column += kColumnTileRows) {
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

  ScorePanels<Dot>& panels_;
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
};

}  // namespace vtfast::cpu
