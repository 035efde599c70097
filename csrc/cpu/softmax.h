// Rows of scores in base-2 units: masking, softmax, and the probabilities again from a saved logsumexp.
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

// Forbids the columns of other regions than `region`; see Group for the codes.
template <class Acc>
inline void mask_row(const ScoreRow<Acc>& row, const uint8_t* column_region, uint8_t region) {
  using Bits = Vector<BitsOf<Acc>>;
  const Vector<Acc> forbidden = broadcast(-kInfinity<Acc>);
  row.for_each_vector([&](Acc* scores, int64_t column) {
    Vector<uint8_t, kLanes<Acc>> codes;
    std::memcpy(&codes, column_region + column, sizeof(codes));
    const auto code = __builtin_convertvector(codes, Bits);
    const Bits allowed = (code == region) | (code == Group::kOpen);
    store(scores, allowed ? load(scores) : forbidden);
  });
}

template <class Acc>
struct RowStatistics {
  Acc inverse_sum;  // 0 for a row with no key
  Acc lse;          // natural logarithm; minus infinity for a row with no key
};

// Scores -> exp2(score - max), unnormalised, handed to sink(address, column, vector).
template <class Acc, class Sink>
VTFAST_INLINE RowStatistics<Acc> softmax_row(const ScoreRow<Acc>& row, Sink sink) {
  using V = Vector<Acc>;
  V largest[2] = {broadcast(-kInfinity<Acc>), broadcast(-kInfinity<Acc>)};
  row.for_each_vector([&](const Acc* scores, int64_t column) {
    V& slot = largest[column / kLanes<Acc> % 2];
    slot = maximum(slot, load(scores));
  });
  Acc top = reduce_max<Acc>(maximum(largest[0], largest[1]));
  if (top == -kInfinity<Acc>) top = 0;
  const V offset = broadcast(top);
  V sums[2] = {};
  row.for_each_vector([&](Acc* scores, int64_t column) {
    const V p = exp2(load(scores) - offset);
    sums[column / kLanes<Acc> % 2] += p;
    sink(scores, column, p);
  });
  const Acc sum = reduce_add<Acc>(sums[0] + sums[1]);
  if (sum == 0) return {Acc(0), -kInfinity<Acc>};
  return {Acc(1) / sum, (top + std::log2(sum)) * Acc(kLn2)};
}

// Scores -> probabilities, in place.
template <class Acc>
VTFAST_INLINE void probabilities_row(const ScoreRow<Acc>& row, Acc lse) {
  const Vector<Acc> offset = broadcast(lse == -kInfinity<Acc> ? kInfinity<Acc> : lse * Acc(kLog2E));
  row.for_each_vector([&](Acc* scores, int64_t) { store(scores, exp2(load(scores) - offset)); });
}

}  // namespace vtfast::cpu
