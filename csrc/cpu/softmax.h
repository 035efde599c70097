// Rows of scores, times `unit` in base-2 units: softmax, and the probabilities again from a saved logsumexp.
//
// Scores of a block of rows lie in panels: row m, column c at [c / kPanel][m][c % kPanel]. A row is handed over as the
// address of its first column and the distance between panels; columns are a whole number of vectors.
#pragma once

#include "group.h"
#include "tile.h"

namespace vtfast::cpu {

inline constexpr double kLog2E = 1.44269504088896340736;
inline constexpr double kLn2 = 0.693147180559945309417;

template <class Acc>
inline constexpr Acc kInfinity = std::numeric_limits<Acc>::infinity();

template <class Acc>
struct ScoreRow {
  Acc* first;
  int64_t panel_stride;
  int64_t num_columns;  // a whole number of vectors

  // Calls body(address, column) for each vector of the row.
  template <class Body>
  VTFAST_INLINE void for_each_vector(Body body) const {
    Acc* panel = first;
    int64_t column = 0;
    for (; column + kPanel<Acc> <= num_columns; column += kPanel<Acc>, panel += panel_stride) {
      body(panel, column);
      body(panel + kLanes<Acc>, column + kLanes<Acc>);
    }
    if (column < num_columns) body(panel, column);
  }
};

// The largest score of a row once `penalties` [columns], unless null, have been added to it.
template <class Acc>
VTFAST_INLINE Acc largest_score(const ScoreRow<Acc>& row, const Acc* penalties) {
  Vector<Acc> largest[2] = {broadcast(-kInfinity<Acc>), broadcast(-kInfinity<Acc>)};
  row.for_each_vector([&](Acc* scores, int64_t column) {
    Vector<Acc> score = load(scores);
    if (penalties != nullptr) store(scores, score += load(penalties + column));
    Vector<Acc>& slot = largest[column / kLanes<Acc> % 2];
    slot = maximum(slot, score);
  });
  return reduce_max<Acc>(maximum(largest[0], largest[1]));
}

// Scores -> exp2(unit score - offset), handed to sink(address, column, vector). Returns their sum over the vectors.
template <class Sink>
VTFAST_INLINE Vector<float> exponentials(const ScoreRow<float>& row, float unit, float offset, Sink sink) {
  const Exp2 exp2_of(offset, unit);
  Vector<float> sums[2] = {};
  row.for_each_vector([&](float* scores, int64_t column) {
    const Vector<float> p = exp2_of(load(scores));
    sums[column / kLanes<float> % 2] += p;
    sink(scores, column, p);
  });
  return sums[0] + sums[1];
}

template <class Sink>
VTFAST_INLINE Vector<double> exponentials(const ScoreRow<double>& row, double unit, double offset, Sink sink) {
  Vector<double> sum{};
  row.for_each_vector([&](double* scores, int64_t column) {
    const Vector<double> p = exp2(load(scores) * unit - offset);
    sum += p;
    sink(scores, column, p);
  });
  return sum;
}

template <class Acc, int kRows>
struct TileStatistics {
  Acc inverse_sum[kRows];  // 0 for a row with no key
  Acc lse[kRows];          // natural logarithm; minus infinity for a row with no key
};

// Softmax, short of the division by the sum, of the rows row(0), ..., row(kRows - 1), with penalties(m) as above;
// sink(m, address, column, vector) takes the result. In three passes over the rows, so that no row waits for another's
// horizontal sums.
template <int kRows, class Acc, class Row, class Penalties, class Sink>
VTFAST_INLINE TileStatistics<Acc, kRows> softmax_tile(Row row, Penalties penalties, Acc unit, Sink sink) {
  Acc offsets[kRows];
  for (int m = 0; m < kRows; ++m) offsets[m] = std::ceil(largest_score<Acc>(row(m), penalties(m)) * unit);
  Vector<Acc> sums[kRows];
  Acc taken_off[kRows] = {};
  for (int m = 0; m < kRows; ++m) {
    if (!(std::abs(offsets[m]) < Acc(1 << 21))) {
      // No key at all, or scores beyond what Exp2 takes an offset from.
      taken_off[m] = offsets[m] == -kInfinity<Acc> ? Acc(0) : offsets[m];
      offsets[m] = 0;
      const Vector<Acc> shift = broadcast(taken_off[m] / unit);
      row(m).for_each_vector([&](Acc* scores, int64_t) { store(scores, load(scores) - shift); });
    }
    sums[m] = exponentials(row(m), unit, offsets[m],
                           [&](Acc* scores, int64_t column, Vector<Acc> p) { sink(m, scores, column, p); });
  }
  TileStatistics<Acc, kRows> statistics;
  for (int m = 0; m < kRows; ++m) {
    const Acc sum = reduce_add<Acc>(sums[m]);
    statistics.inverse_sum[m] = sum == 0 ? Acc(0) : Acc(1) / sum;
    statistics.lse[m] = (taken_off[m] + offsets[m] + std::log2(sum)) * Acc(kLn2);
  }
  return statistics;
}

// Scores and their penalties, unless null, times `unit` in base-2 units -> probabilities, in place.
template <class Acc>
VTFAST_INLINE void probabilities_row(const ScoreRow<Acc>& row, const Acc* penalties, Acc unit, Acc lse) {
  const Vector<Acc> offset = broadcast(lse == -kInfinity<Acc> ? kInfinity<Acc> : lse * Acc(kLog2E));
  const Vector<Acc> factor = broadcast(unit);
  if (penalties == nullptr) {
    row.for_each_vector([&](Acc* scores, int64_t) { store(scores, exp2(load(scores) * factor - offset)); });
  } else {
    row.for_each_vector([&](Acc* scores, int64_t column) {
      store(scores, exp2((load(scores) + load(penalties + column)) * factor - offset));
    });
  }
}

}  // namespace vtfast::cpu
