// A tile of query rows against all keys of one head: scores, softmax over whole rows, product with v. Keys and values
// stay in cache; the scores never leave it.
#pragma once

#include "score_panels.h"

namespace vtfast::cpu {

template <class Dot, class T>
class ForwardTiles {
 public:
  using Acc = typename Dot::Acc;
  using Word = typename Dot::Word;

  // `max_columns` is a whole number of panels.
  static size_t scratch_bytes(int64_t head_dim, int64_t max_columns) {
    const HeadLayout<Dot> head(head_dim);
    return Scratch::bytes_of<Word>(max_columns * head.word_stride) +
           Scratch::bytes_of<Word>(max_columns * head.padded) +
           2 * Scratch::bytes_of<Acc>(Dot::kMaxRows * max_columns) +
           Scratch::bytes_of<Acc>(Dot::kMaxRows * head.padded);
  }

  ForwardTiles(ScorePanels<Dot>& panels, double scale, int64_t max_columns, Scratch& scratch)
      : panels_(panels), scale_(scale) {
    const HeadLayout<Dot>& head = panels.head();
    keys_ = scratch.take<Word>(max_columns * head.word_stride);
    values_ = scratch.take<Word>(max_columns * head.padded);
    score_panels_ = scratch.take<Acc>(Dot::kMaxRows * max_columns);
    probabilities_ = scratch.take<Word>(Dot::kMaxRows * max_columns);
    result_ = scratch.take<Acc>(Dot::kMaxRows * head.padded);
  }

  // Takes the rows of k and v, given by key(column) and value(column).
  template <class Key, class Value>
  void take_columns(Key key, Value value) {
    panels_.pack_keys(key, keys_);
    const HeadLayout<Dot>& head = panels_.head();
    const int64_t num_keys = panels_.num_keys(), columns = Dot::kMatrixUnit ? panels_.columns() : num_keys;
    for (int64_t column = 0; column < columns; column += Dot::kPack) {
      const T* rows[2];
      // Past the last column the probability is zero; any finite row will do.
      for (int i = 0; i < Dot::kPack; ++i) rows[i] = value(std::min(column + i, num_keys - 1));
      load_row_pack(rows, head, values_ + column / Dot::kPack * head.padded);
    }
  }

  // Calls body.template operator()<kRows>() with the height of the tiles in which `rows` rows are worked on.
  template <class Body>
  static void with_rows(int64_t rows, Body body) {
    if constexpr (Dot::kMatrixUnit) {
      body.template operator()<Dot::kMaxRows>();
    } else {
      with_tile_rows(tile_rows(rows), body);
    }
  }

  // What a score must be multiplied by to be in base-2 units. Products of bfloat16 take q as it is, so that nothing is
  // rounded; then the scale waits for the exponential, and the bias is divided by it.
  double unit() const { return Dot::kPack == 2 && !Dot::kMatrixUnit ? scale_ * kLog2E : 1; }

  // The tile whose rows of q are query(m), with bias_of(column) as ScorePanels has it, over unit(), and penalties(m) as
  // softmax_tile has them. between() is called some times in the course of the work.
  template <int kRows, class Query, class BiasOf, class Penalties, class Between>
  VTFAST_INLINE TileStatistics<Acc, kRows> attend(Query query, BiasOf bias_of, Penalties penalties, Between between) {
    score<kRows>(query, bias_of, between);
    const auto row = [this](int m) { return score_row<kRows>(m); };
    // The probabilities go where the product reads them: in place of the scores, or to words of their own.
    const auto keep = [this](int m, Acc* scores, int64_t column, Vector<Acc> p) {
      if constexpr (Dot::kPack == 1) {
        store(scores, p);
      } else {
        T* words = reinterpret_cast<T*>(probabilities_) + (column / kPanel<Acc> * kRows + m) * kPanel<Acc>;
        store_from_acc(words + column % kPanel<Acc>, p);
      }
    };
    const auto statistics = softmax_tile<kRows, Acc>(row, penalties, static_cast<Acc>(unit()), keep);
    multiply_values<kRows>();
    return statistics;
  }

  // Row m of the tile's result [padded], to be multiplied by its inverse sum.
  const Acc* result(int m) const { return result_ + m * panels_.head().padded; }

 private:
  template <int kRows, class Query, class BiasOf, class Between>
  VTFAST_INLINE void score(Query query, BiasOf bias_of, Between between) {
    const Acc scale = static_cast<Acc>(scale_ * kLog2E);
    if constexpr (Dot::kMatrixUnit) {
      const int64_t words = panels_.head().word_stride;
      Dot::multiply_keys(panels_.load_rows(query), words, keys_, panels_.num_panels(), score_panels_);
      for (int m = 0; m < kRows; ++m) {
        panels_.add_bias(bias_of, m, score_row<kRows>(m), scale);
        between();
      }
    } else {
      const Word* rows = panels_.pack_rows(query, scale);
      panels_.template compute<kRows>(rows, keys_, score_panels_, kRows * kPanel<Acc>, bias_of, between);
      for (int m = 0; m < kRows; m += 4) between();
    }
  }

  // result = probabilities v
  template <int kRows>
  VTFAST_INLINE void multiply_values() {
    const int64_t padded = panels_.head().padded;
    if constexpr (Dot::kMatrixUnit) {
      Dot::multiply_values(probabilities_, panels_.num_panels(), values_, padded, result_);
    } else {
      const Word* p = Dot::kPack == 1 ? reinterpret_cast<const Word*>(score_panels_) : probabilities_;
      const int64_t depth = (panels_.num_keys() + Dot::kPack - 1) / Dot::kPack;
      multiply_panels<Dot, kRows>(p, kRows * kPanel<Acc> / Dot::kPack, depth, values_, padded,
                                  [&](int m, int64_t d, Vector<Acc> sum) { store(result_ + m * padded + d, sum); });
    }
  }

  template <int kRows>
  ScoreRow<Acc> score_row(int m) const {
    return {score_panels_ + m * kPanel<Acc>, kRows * kPanel<Acc>, panels_.columns()};
  }

  ScorePanels<Dot>& panels_;
  double scale_;
  Word* keys_;           // [panels, word_stride, kPanel]
  Word* values_;         // [columns / kPack, padded]
  Acc* score_panels_;    // [panels, kRows, kPanel]
  Word* probabilities_;  // [panels, kRows, kPanel / kPack]
  Acc* result_;          // [kRows, padded]
};

}  // namespace vtfast::cpu
