// What keeps a query from the keys it must not see: minus infinity, to be added to its scores.
#pragma once

#include <algorithm>
#include <limits>

#include "group.h"

namespace vtfast::cpu {

// Rows of penalties of one group, one for each region that its queries come from, made when first asked for.
template <class Acc>
class Penalties {
 public:
  static size_t scratch_bytes(const GridAttentionParams& p, int64_t padded_columns) {
    return Scratch::bytes_of<Acc>(max_rows(p) * padded_columns);
  }

  Penalties(const GridAttentionParams& p, int64_t padded_columns, Scratch& scratch)
      : stride_(padded_columns), rows_(scratch.take<Acc>(max_rows(p) * padded_columns)) {}

  void begin_group(const Group& group, int64_t columns) {
    group_ = &group;
    columns_ = columns;
    num_made_ = 0;
    std::fill_n(made_, kRegions, nullptr);
  }

  // Penalties of a query row, by column; null if it sees all keys.
  const Acc* of_row(int64_t row) {
    if (!group_->masked) return nullptr;
    const bool prefix = group_->is_prefix_row(row);
    const uint8_t region = prefix ? Group::kOpen : group_->row_region[row];
    const Acc*& penalties = made_[prefix ? kRegions - 1 : region];
    if (penalties == nullptr) penalties = make(prefix ? group_->column_open : group_->column_region, region);
    return penalties;
  }

 private:
  // 3 x 3 x 3 stretches of the grid, and the prefix, which sees whatever is not masked.
  static constexpr int kRegions = 28;

  // A group lies on both sides of at most one seam along each axis.
  static int64_t max_rows(const GridAttentionParams& p) {
    const Geometry& g = p.geometry;
    return (g.t.shift ? 2 : 1) * (g.h.shift ? 2 : 1) * (g.w.shift ? 2 : 1) + 1;
  }

  const Acc* make(const uint8_t* columns, uint8_t region) {
    Acc* penalties = rows_ + num_made_++ * stride_;
    for (int64_t c = 0; c < group_->num_columns; ++c) {
      const bool allowed = columns[c] == region || columns[c] == Group::kOpen;
      penalties[c] = allowed ? Acc(0) : -std::numeric_limits<Acc>::infinity();
    }
    std::fill(penalties + group_->num_columns, penalties + columns_, Acc(0));
    return penalties;
  }

  int64_t stride_;
  Acc* rows_;  // [max_rows, padded_columns]
  const Acc* made_[kRegions];
  const Group* group_ = nullptr;
  int64_t columns_ = 0;
  int64_t num_made_ = 0;
};

}  // namespace vtfast::cpu
